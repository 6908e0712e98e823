package shadow

// Peek is a sample of at most max dirty units, which it leaves as they are: for
// a prediction, not for copying.
func (j *Journal) Peek(max int) []Unit {
	out := make([]Unit, 0, min(max, j.Len()))
	for i := range j.shards {
		sh := &j.shards[i]
		sh.mu.Lock()
		for n, u := range sh.units {
			if len(out) >= max {
				break
			}
			if u.what != 0 {
				out = append(out, Unit{n, u.what, u.seq})
			}
		}
		sh.mu.Unlock()
	}
	return out
}
