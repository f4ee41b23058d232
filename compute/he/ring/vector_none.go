package ring

// vectorTables exist where there is assembly; here there is none.
type vectorTables struct{}

func newVectorTables(*transform) *vectorTables { return nil }

func (t *transform) vectorNTT(a []uint64)  { t.plainNTT(a) }
func (t *transform) vectorINTT(a []uint64) { t.plainINTT(a) }

func (m *Modulus) vectorMul(out, a, b []uint64) bool            { return false }
func (m *Modulus) vectorDot(out []uint64, a, b [][]uint64) bool { return false }
