package pdf

import (
	"bytes"
	"context"
)

// placed is an object and where in the file it was defined; the last place wins.
type placed struct {
	object any
	at     int
}

// A file is its objects.
type file struct {
	ctx      context.Context
	data     []byte
	objects  map[int]placed
	root     any  // of the last trailer that names one
	inflated int  // bytes that streams may still give
	elements int  // elements of arrays and dictionaries that may still come
	ops      int  // operators that may still run
	mappings int  // codes that fonts may still map
	cut      bool // no endstream follows any more
}

// pay takes n operators off the budget.
func (f *file) pay(n int) error {
	if f.ops -= n; f.ops < 0 {
		return tooLarge("more than %d drawing operators", MaxOps)
	}
	return nil
}

// parse reads the object at data[pos:] and returns where it ends.
func (f *file) parse(data []byte, pos int) (any, int, error) {
	l := &lexer{data: data, pos: pos, refs: true, left: f.elements}
	o := l.object()
	if f.elements = l.left; f.elements < 0 {
		return nil, 0, tooLarge("more than %d elements of arrays and dictionaries", MaxElements)
	}
	return o, l.pos, nil
}

// scan finds every "N G obj" outside streams, every trailer, and then what object streams hold.
func (f *file) scan() error {
	locked := false
	packed := map[*stream]int{}
	at, t := -1, -1
	for pos := 0; ; {
		if at < pos {
			at = next(f.data, pos, "obj")
		}
		if t < pos {
			t = next(f.data, pos, "trailer")
		}
		if t < at {
			o, end, err := f.parse(f.data, t+len("trailer"))
			if err != nil {
				return err
			}
			if d, ok := o.(dict); ok {
				locked = f.trailer(d) || locked
			}
			pos = end
			continue
		}
		if at == len(f.data) {
			break
		}
		pos = at + len("obj")
		num, ok := header(f.data, at)
		if !ok {
			continue
		}
		if len(f.objects) >= MaxObjects {
			return tooLarge("more than %d objects", MaxObjects)
		}
		if len(f.objects)%1024 == 0 && f.ctx.Err() != nil {
			return f.ctx.Err()
		}
		var o any
		var err error
		if o, pos, err = f.define(pos); err != nil {
			return err
		}
		f.objects[num] = placed{o, at}
		if s, ok := o.(*stream); ok {
			switch s.dict["Type"] {
			case name("XRef"):
				locked = f.trailer(s.dict) || locked
			case name("ObjStm"):
				packed[s] = at
			}
		}
	}
	if locked {
		return Encrypted
	}
	for s, at := range packed {
		if err := f.unpack(s, at); err != nil {
			return err
		}
	}
	return nil
}

// next returns where mark stands in data[from:], len(data) if nowhere.
func next(data []byte, from int, mark string) int {
	if i := bytes.Index(data[from:], []byte(mark)); i >= 0 {
		return from + i
	}
	return len(data)
}

// header reads "N G " backwards from the obj at data[at:].
func header(data []byte, at int) (int, bool) {
	i := at
	back := func() (int, bool) {
		blank := i
		for i > 0 && space(data[i-1]) {
			i--
		}
		stop := i
		for i > 0 && data[i-1] >= '0' && data[i-1] <= '9' && stop-i < 10 {
			i--
		}
		v := 0
		for _, c := range data[i:stop] {
			v = v*10 + int(c-'0')
		}
		return v, stop > i && (blank > stop || blank == at)
	}
	if _, ok := back(); !ok {
		return 0, false
	}
	return back()
}

// define reads the object at pos and, where it is a stream, its bytes. It returns where scanning goes on.
func (f *file) define(pos int) (any, int, error) {
	o, after, err := f.parse(f.data, pos)
	if err != nil {
		return nil, 0, err
	}
	d, ok := o.(dict)
	if !ok {
		if _, bad := o.(operator); bad {
			return nil, pos, nil
		}
		return o, after, nil
	}
	l := &lexer{data: f.data, pos: after}
	l.skip()
	rest := f.data[l.pos:]
	if !bytes.HasPrefix(rest, []byte("stream")) {
		return d, l.pos, nil
	}
	start := l.pos + len("stream")
	if start < len(f.data) && f.data[start] == '\r' {
		start++
	}
	if start < len(f.data) && f.data[start] == '\n' {
		start++
	}
	if n, ok := d["Length"].(float64); ok && n >= 0 && n <= float64(len(f.data)-start) {
		if stop := start + int(n); closes(f.data[stop:]) {
			return &stream{d, f.data[start:stop]}, stop, nil
		}
	}
	if start > len(f.data) || f.cut {
		return d, min(start, len(f.data)), nil
	}
	stop := next(f.data, start, "endstream")
	f.cut = stop == len(f.data)
	return &stream{d, f.data[start:stop]}, stop, nil
}

// closes reports whether endstream follows, after white space.
func closes(rest []byte) bool {
	rest = rest[:min(len(rest), 32)]
	return bytes.HasPrefix(bytes.TrimLeft(rest, "\r\n \t"), []byte("endstream"))
}

// trailer takes the root of a trailer and reports whether the file is encrypted.
func (f *file) trailer(d dict) bool {
	if d["Root"] != nil {
		f.root = d["Root"]
	}
	return d["Encrypt"] != nil
}

// unpack defines the objects of an object stream (7.5.7), unless they are defined later in the file.
func (f *file) unpack(s *stream, at int) error {
	data, err := f.decode(s)
	if err != nil {
		return err
	}
	n, first := f.int(s.dict["N"]), f.int(s.dict["First"])
	if first < 0 || first > len(data) {
		return damaged("an object stream begins after its end")
	}
	index := &lexer{data: data[:first]}
	budget := 4*len(data) + 1<<20 // objects may overlap, but not to read the stream over and over
	for range min(max(n, 0), MaxObjects) {
		num, ok1 := index.object().(float64)
		off, ok2 := index.object().(float64)
		if !ok1 || !ok2 {
			break
		}
		if off < 0 || off > float64(len(data)-first) {
			continue
		}
		if old, ok := f.objects[int(num)]; ok && old.at > at {
			continue
		}
		if len(f.objects) >= MaxObjects {
			return tooLarge("more than %d objects", MaxObjects)
		}
		o, stop, err := f.parse(data, first+int(off))
		if err != nil {
			return err
		}
		if budget -= stop - first - int(off); budget < 0 {
			return damaged("objects of an object stream overlap")
		}
		if o == any(end) {
			continue
		}
		f.objects[int(num)] = placed{o, at}
	}
	return nil
}

// get follows references, at most MaxNesting of them.
func (f *file) get(o any) any {
	for range MaxNesting {
		r, ok := o.(ref)
		if !ok {
			return o
		}
		o = f.objects[r.num].object
	}
	return nil
}

func (f *file) dict(o any) dict {
	switch o := f.get(o).(type) {
	case dict:
		return o
	case *stream:
		return o.dict
	}
	return nil
}

func (f *file) array(o any) array {
	a, _ := f.get(o).(array)
	return a
}

func (f *file) name(o any) name {
	n, _ := f.get(o).(name)
	return n
}

func (f *file) number(o any) float64 {
	v, _ := f.get(o).(float64)
	return v
}

func (f *file) int(o any) int {
	v := f.number(o)
	if v != v || v > 1<<31 || v < -1<<31 {
		return 0
	}
	return int(v)
}

// A page is its dictionary and the resources in force, its own or inherited.
type page struct {
	dict      dict
	resources dict
}

// pages returns the leaves of the page tree in order.
func (f *file) pages() ([]page, error) {
	root := f.dict(f.root)
	if f.dict(root["Pages"]) == nil {
		last := -1
		for _, p := range f.objects {
			if d, ok := p.object.(dict); ok && p.at > last && d["Type"] == name("Catalog") && f.dict(d["Pages"]) != nil {
				root, last = d, p.at
			}
		}
	}
	w := &walk{file: f, seen: map[int]bool{}}
	if err := w.node(root["Pages"], nil, 0); err != nil {
		return nil, err
	}
	if len(w.pages) == 0 {
		return nil, damaged("no pages")
	}
	return w.pages, nil
}

type walk struct {
	file  *file
	seen  map[int]bool // a node comes once, or the tree is a loop
	pages []page
}

func (w *walk) node(o any, inherited dict, depth int) error {
	if depth > MaxNesting {
		return tooLarge("a page tree of more than %d levels", MaxNesting)
	}
	if err := w.file.pay(1); err != nil {
		return err
	}
	if r, ok := o.(ref); ok {
		if w.seen[r.num] {
			return nil
		}
		w.seen[r.num] = true
	}
	d := w.file.dict(o)
	if d == nil {
		return nil
	}
	if own := w.file.dict(d["Resources"]); own != nil {
		inherited = own
	}
	kids := w.file.array(d["Kids"])
	if kids == nil {
		if len(w.pages) >= MaxPages {
			return tooLarge("more than %d pages", MaxPages)
		}
		w.pages = append(w.pages, page{d, inherited})
		return nil
	}
	for _, k := range kids {
		if err := w.node(k, inherited, depth+1); err != nil {
			return err
		}
	}
	return nil
}
