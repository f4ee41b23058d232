//go:build !amd64 || purego

package ring

// vectorConstants and vectorTables exist where there is assembly; here there is none.
type (
	vectorConstants struct{}
	vectorTables    struct{}
)

func newVectorConstants(*Modulus) (c vectorConstants) { return c }
func newVectorTables(*transform) *vectorTables        { return nil }

func (t *transform) vectorNTT(a []uint64)  { t.plainNTT(a) }
func (t *transform) vectorINTT(a []uint64) { t.plainINTT(a) }

func (m *Modulus) vectorMul(out, a, b []uint64) bool                            { return false }
func (m *Modulus) vectorDot(out []uint64, a, b [][]uint64) bool                 { return false }
func (m *Modulus) vectorCombine(out []uint64, rows [][]uint64, w []uint64) bool { return false }
func (m *Modulus) vectorScale(out, a []uint64, s, shoup uint64) bool            { return false }
func vectorFixed(hi, lo []uint64, rows [][]uint64, fractions []uint64) bool     { return false }
