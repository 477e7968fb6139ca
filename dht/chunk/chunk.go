package chunk

import (
	"fmt"
	"io"
	"math/bits"
)

// DefaultAverage is the average size of chunks in bytes that the protocol recommends.
const DefaultAverage = 512 << 10

// The protocol's range for the average, in bytes.
const (
	MinAverage = 1 << 10
	MaxAverage = 8 << 20
)

// normalisation is how many bits harder a cut is before the average size, and easier behind it.
const normalisation = 2

// step is how many bytes are read ahead at once; it bounds what is moved after a cut.
const step = 64 << 10

// maxIdle is how often a reader may give neither bytes nor an error before it is given up.
const maxIdle = 100

// Params are what both sides must agree upon.
type Params struct {
	// Average size of chunks in bytes: a power of 2 from MinAverage to MaxAverage; 0 is DefaultAverage.
	Average int64
	// Seed varies the cuts; the protocol recommends 0.
	Seed uint32
}

// Validate checks the range of the average.
func (p Params) Validate() error {
	if a := p.average(); a < MinAverage || a > MaxAverage || a&(a-1) != 0 {
		return fmt.Errorf("average chunk size %d is not a power of 2 from %d to %d", a, MinAverage, MaxAverage)
	}
	return nil
}

func (p Params) average() int64 {
	if p.Average == 0 {
		return DefaultAverage
	}
	return p.Average
}

// Min is the size in bytes of the smallest chunk, except for the last of a stream.
func (p Params) Min() int64 { return p.average() / 4 }

// Max is the size in bytes of the largest chunk.
func (p Params) Max() int64 { return p.average() * 4 }

// Chunker cuts what a reader gives.
type Chunker struct {
	r             io.Reader
	min, avg, max int
	gear, shifted *[256]uint64 // shifted[i] is gear[i] << 1
	small, large  uint64       // masks before and behind the average size
	buf           []byte       // max bytes
	end           int          // of the bytes in buf
	cut           int          // bytes of buf that the last Next returned
	eof           bool
	err           error  // sticky
	fingerprint   uint64 // at the last cut
}

// New starts to cut what r gives. It panics when p is not valid, which only a programmer's error can
// cause: Validate tells beforehand.
func New(r io.Reader, p Params) *Chunker {
	if err := p.Validate(); err != nil {
		panic("chunk: " + err.Error())
	}
	return newChunker(r, int(p.Min()), int(p.average()), int(p.Max()), p.Seed)
}

// newChunker takes the sizes apart from each other, as the official vectors need it.
func newChunker(r io.Reader, minSize, average, maxSize int, seed uint32) *Chunker {
	level := bits.Len(uint(average)) - 1
	c := &Chunker{
		r: r, min: minSize, avg: average, max: maxSize,
		small: masks[level+normalisation], large: masks[level-normalisation],
		buf: make([]byte, maxSize),
	}
	c.gear, c.shifted = gearTables(seed)
	return c
}

// Next gives the next chunk, valid until the next call, and io.EOF after the last. An error of the
// reader is returned as it is, for this and every later call; what was read before it and not yet
// returned is lost.
func (c *Chunker) Next() ([]byte, error) {
	if c.err != nil {
		return nil, c.err
	}
	c.end = copy(c.buf, c.buf[c.cut:c.end])
	c.cut = 0
	if err := c.fill(c.min); err != nil {
		return nil, err
	}
	if c.end == 0 {
		c.err = io.EOF
		return nil, io.EOF
	}
	s := scan{at: c.min &^ 1}
	for {
		if c.find(&s) {
			break
		}
		if c.eof || c.end == c.max {
			s.at = c.end
			break
		}
		if err := c.fill(min(c.end+step, c.max)); err != nil {
			return nil, err
		}
	}
	c.cut, c.fingerprint = s.at, s.fingerprint
	return c.buf[:c.cut], nil
}

// fill reads until buf has want bytes or the stream ends.
func (c *Chunker) fill(want int) error {
	if c.eof {
		return nil
	}
	idle := 0
	for c.end < want {
		n, err := c.r.Read(c.buf[c.end:want])
		c.end += n
		if err == io.EOF {
			c.eof = true
			return nil
		}
		if err != nil {
			c.err = err
			return err
		}
		if n == 0 {
			if idle++; idle == maxIdle {
				c.err = io.ErrNoProgress
				return c.err
			}
		}
	}
	return nil
}

// scan is how far the search for a cut has come.
type scan struct {
	at          int // even; the cut when one was found
	fingerprint uint64
}

// find goes on until a cut or the end of what is in buf, and reports whether it is a cut. Bytes are
// taken in pairs (section 3.7 of the paper), the first of a pair with everything shifted by one; an
// odd last byte of the stream is not looked at.
func (c *Chunker) find(s *scan) bool {
	end := c.end &^ 1
	if s.at < c.avg && c.pairs(s, min(end, c.avg&^1), c.small) {
		return true
	}
	return c.pairs(s, end, c.large)
}

// pairs looks for a cut before end with one mask.
func (c *Chunker) pairs(s *scan, end int, mask uint64) bool {
	gear, shifted := c.gear, c.shifted
	maskShifted := mask << 1
	at, fp := s.at, s.fingerprint
	if at >= end {
		return false
	}
	data := c.buf[at:end]
	for i := 0; i+1 < len(data); i += 2 {
		fp = fp<<2 + shifted[data[i]]
		if fp&maskShifted == 0 {
			s.at, s.fingerprint = at+i, fp
			return true
		}
		fp += gear[data[i+1]]
		if fp&mask == 0 {
			s.at, s.fingerprint = at+i+1, fp
			return true
		}
	}
	s.at, s.fingerprint = end, fp
	return false
}
