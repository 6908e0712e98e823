// Package e2e holds the black-box tests: the built command on real loop volumes,
// under an application that remembers what it was promised (churn), judged by
// that and by other people's programs (oracle).
//
// Every verdict is two-sided: the volume in place holds everything that was
// acknowledged, and nothing that was not. Nothing of the product is imported.
//
// FSMIGRATE_BIN names a binary to test instead of building one, FSMIGRATE_LONG=1
// asks for the long suite, FSMIGRATE_SEED repeats a run.
package e2e
