package ledger

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/mod/sumdb/tlog"
)

// Tiles have 256 hashes: height 8 (https://c2sp.org/tlog-tiles).
const (
	tileHeight = 8
	tileWidth  = 1 << tileHeight
	hashSize   = tlog.HashSize
)

// A tileID names a tile with as many hashes as it has: the last of its level may be partial.
type tileID struct {
	level int
	index uint64
	width int
}

func (t tileID) key() []byte {
	return binary.BigEndian.AppendUint64([]byte{byte(t.level)}, t.index)
}

// path returns the tile's path under the log's prefix.
func (t tileID) path() string {
	return "tile/" + strconv.Itoa(t.level) + "/" + indexPath(t.index) + partial(t.width)
}

func bundlePath(index uint64, width int) string {
	return "tile/entries/" + indexPath(index) + partial(width)
}

func partial(width int) string {
	if width == tileWidth {
		return ""
	}
	return ".p/" + strconv.Itoa(width)
}

// indexPath writes n in groups of three digits, all but the last prefixed with x: 1234067 is x001/x234/067.
func indexPath(n uint64) string {
	s := fmt.Sprintf("%03d", n%1000)
	for n >= 1000 {
		n /= 1000
		s = fmt.Sprintf("x%03d/%s", n%1000, s)
	}
	return s
}

var errPath = errors.New("not a path of tlog-tiles")

// parsePath reads a tile's or bundle's path; entries is true for a bundle, whose level is 0.
func parsePath(path string) (t tileID, entries bool, err error) {
	rest, ok := strings.CutPrefix(path, "tile/")
	if !ok {
		return t, false, errPath
	}
	level, rest, ok := strings.Cut(rest, "/")
	if !ok {
		return t, false, errPath
	}
	if entries = level == "entries"; !entries {
		if t.level, err = strconv.Atoi(level); err != nil || t.level < 0 || t.level > 5 || strconv.Itoa(t.level) != level {
			return t, false, errPath
		}
	}
	t.width = tileWidth
	if number, width, isPartial := strings.Cut(rest, ".p/"); isPartial {
		if t.width, err = strconv.Atoi(width); err != nil || t.width < 1 || t.width >= tileWidth || strconv.Itoa(t.width) != width {
			return t, false, errPath
		}
		rest = number
	}
	if len(rest) > 40 {
		return t, false, errPath
	}
	for part := range strings.SplitSeq(rest, "/") {
		n, err := strconv.ParseUint(strings.TrimPrefix(part, "x"), 10, 16)
		if err != nil || n > 999 || t.index > 1<<40 {
			return t, false, errPath
		}
		t.index = t.index*1000 + n
	}
	if indexPath(t.index) != rest {
		return t, false, errPath
	}
	return t, entries, nil
}

func nodeHash(left, right []byte) []byte {
	h := tlog.NodeHash(tlog.Hash(left), tlog.Hash(right))
	return h[:]
}

func leafHash(entry []byte) []byte {
	h := LeafHash(entry)
	return h[:]
}

// A subtree is a tile with all the inner hashes that its hashes determine: row r holds the roots of 2^r hashes each.
type subtree struct {
	rows [tileHeight + 1][]byte
}

func expand(hashes []byte) *subtree {
	s := new(subtree)
	s.rows[0] = hashes
	for r := 1; r <= tileHeight; r++ {
		below := s.rows[r-1]
		row := make([]byte, 0, len(below)/2/hashSize*hashSize)
		for i := 0; i+2*hashSize <= len(below); i += 2 * hashSize {
			h := tlog.NodeHash(tlog.Hash(below[i:i+hashSize]), tlog.Hash(below[i+hashSize:i+2*hashSize]))
			row = append(row, h[:]...)
		}
		s.rows[r] = row
	}
	return s
}

func (s *subtree) hash(row int, index uint64) []byte {
	b := s.rows[row]
	if int(index+1)*hashSize > len(b) {
		return nil
	}
	return b[index*hashSize : (index+1)*hashSize]
}

// A tileCache keeps the tiles used last, expanded: about 16 KiB each.
type tileCache struct {
	mu    sync.Mutex
	limit int
	tiles map[tileID]*cached
	clock int64
}

type cached struct {
	tree *subtree
	used int64
}

func newTileCache(limit int) *tileCache {
	return &tileCache{limit: limit, tiles: map[tileID]*cached{}}
}

// get returns the tile, reading it with load if it is not cached.
func (c *tileCache) get(id tileID, load func(tileID) ([]byte, error)) (*subtree, error) {
	c.mu.Lock()
	c.clock++
	if e := c.tiles[id]; e != nil {
		e.used = c.clock
		c.mu.Unlock()
		return e.tree, nil
	}
	c.mu.Unlock()
	b, err := load(id)
	if err != nil {
		return nil, err
	}
	t := expand(b)
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.tiles) >= c.limit {
		c.evict()
	}
	c.tiles[id] = &cached{t, c.clock}
	return t, nil
}

// evict forgets the older half; called with the lock held.
func (c *tileCache) evict() {
	horizon := c.clock - int64(c.limit)/2
	for id, e := range c.tiles {
		if e.used <= horizon {
			delete(c.tiles, id)
		}
	}
	for id := range c.tiles {
		if len(c.tiles) < c.limit {
			return
		}
		delete(c.tiles, id)
	}
}
