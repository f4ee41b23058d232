package program

import (
	"context"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/bits"
	"slices"
	"strings"

	"fednode/compute/he"
)

// Values are a column in the clear.
type Values struct {
	Name  string
	Total bool // one number
	Rows  []he.Int
}

// A Progress is told how much of the work is done. It may be nil.
type Progress func(done, of int)

func (f Progress) tell(done, of int) {
	if f != nil {
		f(done, of)
	}
}

// ReadColumns reads columns of whole numbers from CSV with a header (RFC 4180), in the order of names. Columns that
// aren't there are left out of the result and no error; none at all is one. Errors name row and column, never a value.
func ReadColumns(in io.Reader, names []string, maxRows int) ([]Values, error) {
	r := csv.NewReader(in)
	r.ReuseRecord = true
	header, err := r.Read()
	if errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("the file is empty: its first line names the columns")
	}
	if err != nil {
		return nil, err
	}
	if first, _ := r.FieldPos(0); first != 1 {
		return nil, fmt.Errorf("line 1 is empty: the first line names the columns")
	}
	at := map[string]int{}
	for i, name := range header {
		if i == 0 {
			name = strings.TrimPrefix(name, "\ufeff")
		}
		name = strings.TrimSpace(name)
		if _, twice := at[name]; twice && slices.Contains(names, name) {
			return nil, fmt.Errorf("two columns are called %s", name)
		}
		at[name] = i
	}
	var out []Values
	for _, name := range names {
		if _, ok := at[name]; ok {
			out = append(out, Values{Name: name})
		}
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("none of the program's columns is in the file: %s%s", strings.Join(names, ", "), near(names[0], slices.Sorted(maps.Keys(at))))
	}
	last := lastLine(r, header)
	for row := 1; ; row++ {
		record, err := r.Read()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, err
		}
		if first, _ := r.FieldPos(0); first != last+1 { // the reader skips it, and rows would not be those of another's column
			return nil, fmt.Errorf("line %d is empty: take it out if it is no row, or write its number", last+1)
		}
		last = lastLine(r, record)
		if row > maxRows {
			return nil, fmt.Errorf("more than %d rows, which is what the plan has room for", maxRows)
		}
		for i := range out {
			x, err := he.ParseInt(strings.TrimSpace(record[at[out[i].Name]]))
			if err != nil {
				line, _ := r.FieldPos(at[out[i].Name])
				return nil, fmt.Errorf("line %d, column %s: %w; columns are of whole numbers: scale others, say to cents", line, out[i].Name, err)
			}
			out[i].Rows = append(out[i].Rows, x)
		}
	}
	if len(out[0].Rows) == 0 {
		return nil, fmt.Errorf("the file has no rows below its header")
	}
	return out, nil
}

// lastLine returns the line that the record just read ends in.
func lastLine(r *csv.Reader, record []string) int {
	line, _ := r.FieldPos(len(record) - 1)
	return line + strings.Count(record[len(record)-1], "\n")
}

// Measure returns the bounds of what is in a column: the least and the largest number.
func (v Values) Measure() (Range, error) {
	lo, hi := v.Rows[0], v.Rows[0]
	for _, x := range v.Rows {
		if x.Less(lo) {
			lo = x
		}
		if hi.Less(x) {
			hi = x
		}
	}
	return ParseRange(lo.String(), hi.String())
}

// Encrypt encrypts columns under the public key of a plan, which key names. A column that leaves its bounds is refused,
// with the row and without the number.
func Encrypt(ctx context.Context, pl *Plan, pk *he.PublicKey, key KeyID, columns []Values, progress Progress) (*Table, error) {
	t := &Table{Plan: pl.id, Key: key}
	of, done := 0, 0
	for _, v := range columns {
		r, ok := pl.bounds[v.Name]
		if !ok {
			return nil, fmt.Errorf("the plan has no column %s%s", v.Name, near(v.Name, pl.program.columns))
		}
		if len(v.Rows) < 1 || len(v.Rows) > pl.rows {
			return nil, fmt.Errorf("column %s has %d rows; the plan has room for 1 to %d", v.Name, len(v.Rows), pl.rows)
		}
		if row := v.outside(r); row >= 0 {
			return nil, fmt.Errorf("column %s, row %d: the number is outside the plan's bounds %s; mend the data, or plan anew with wider bounds", v.Name, row+1, r)
		}
		of += pl.parts(len(v.Rows))
	}
	for _, v := range columns {
		c := Column{Name: v.Name, Rows: len(v.Rows)}
		for rows := range slices.Chunk(v.Rows, pl.p.N()) {
			if err := ctx.Err(); err != nil {
				return nil, err
			}
			pt, err := pl.p.EncodeWide(rows)
			if err != nil {
				return nil, err
			}
			ct, err := pk.Encrypt(pt)
			pt.Wipe()
			if err != nil {
				return nil, err
			}
			c.Parts = append(c.Parts, ct)
			done++
			progress.tell(done, of)
		}
		t.Columns = append(t.Columns, c)
	}
	return t, nil
}

// outside returns a row whose number is not within r, or -1, in time that depends on the number of rows alone.
func (v Values) outside(r Range) int {
	lo, hi := r.limits()
	bad := ^uint64(0)
	for i, x := range v.Rows {
		out := bit(x.Less(lo)) | bit(hi.Less(x))
		// The first row that is outside; bad stays once it is set.
		bad ^= -(out & (bad >> 63)) & (bad ^ uint64(i))
	}
	if bits.Len64(bad) == 64 {
		return -1
	}
	return int(bad)
}

func bit(b bool) uint64 {
	if b {
		return 1
	}
	return 0
}

// Decrypt returns the numbers in a table of results, or of columns.
func Decrypt(pl *Plan, sk *he.SecretKey, t *Table, progress Progress) ([]Values, error) {
	decrypt := func(ct *he.Ciphertext) (*he.Plaintext, error) { return sk.Decrypt(ct) }
	return pl.Open(t, decrypt, progress)
}

// Open returns the numbers in a table whose ciphertexts decrypt turns to plaintexts, which it wipes. Results that are not
// those of the program are refused before they are decrypted, and those that leave the plan's range after: columns
// within their bounds do not lead there, and a ciphertext made to show the key is most likely to.
func (pl *Plan) Open(t *Table, decrypt func(*he.Ciphertext) (*he.Plaintext, error), progress Progress) ([]Values, error) {
	if err := pl.checkResults(t); err != nil {
		return nil, err
	}
	of, done := 0, 0
	for _, c := range t.Columns {
		of += len(c.Parts)
	}
	var out []Values
	for at, c := range t.Columns {
		v := Values{Name: c.Name, Total: c.Total}
		rows := c.Rows
		if c.Total {
			rows = 1
		}
		for _, ct := range c.Parts {
			pt, err := decrypt(ct)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", c.Name, err)
			}
			slots, err := pt.WideSlots()
			pt.Wipe()
			if err != nil {
				return nil, err
			}
			n := min(rows-len(v.Rows), len(slots))
			v.Rows = append(v.Rows, slots[:n]...)
			clear(slots)
			done++
			progress.tell(done, of)
		}
		if t.Results {
			r := pl.ranges[pl.program.outputs[at].node.id]
			if row := v.outside(r); row >= 0 {
				clear(v.Rows)
				return nil, fmt.Errorf("%s, row %d: %w: the plan has %s; a column was not within its bounds, or not encrypted but made up: do not trust this result, nor who supplied the columns",
					c.Name, row+1, he.ErrRange, r)
			}
		}
		out = append(out, v)
	}
	return out, nil
}

// checkResults refuses tables of results whose names and kinds are not those of the program.
func (pl *Plan) checkResults(t *Table) error {
	if !t.Results {
		return nil
	}
	outputs := pl.program.outputs
	ok := len(t.Columns) == len(outputs)
	for i := 0; ok && i < len(outputs); i++ {
		c := t.Columns[i]
		ok = c.Name == outputs[i].name && c.Total == outputs[i].node.total && c.Rows <= pl.rows
	}
	if !ok {
		return fmt.Errorf("%w: the table says that it holds results, and not those of the program", he.ErrMismatch)
	}
	return nil
}
