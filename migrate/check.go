package migrate

// Verdict is the outcome of one preflight check.
type Verdict string

// The verdicts. A refused check forbids the migration unless it is Waivable
// and the plan waives its name with a reason.
const (
	OK      Verdict = "ok"
	Warning Verdict = "warning"
	Refused Verdict = "refused"
	Waived  Verdict = "waived"
)

// Check is one preflight check, as a value: a table row or a JSON object.
type Check struct {
	Name     string  `json:"name"`     // kebab-case, stable: what a waiver names
	Category string  `json:"category"` // taxonomy: "category 6" (hardware, kernel), "fit" (what would be lost), "state", "service"
	Found    string  `json:"found"`    // what is
	Need     string  `json:"need"`     // what must be
	Verdict  Verdict `json:"verdict"`
	Remedy   string  `json:"remedy,omitempty"` // what the operator can do
	Waivable bool    `json:"waivable,omitempty"`
	// Impossible: refused, and no device, no waiver and no waiting would change that.
	Impossible bool `json:"impossible,omitempty"`
}

// Refusal is the kind of failure that checks of which some are refused lead to.
func Refusal(refused []Check) Kind {
	for _, c := range refused {
		if c.Impossible {
			return Impossible
		}
	}
	return IsRefused
}
