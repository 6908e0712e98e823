// Package shadow keeps two volumes side by side: the source and its shadow.
package shadow
