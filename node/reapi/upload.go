package reapi

import (
	"container/list"
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/buildmesh/buildmesh/dht/cas"
	"github.com/buildmesh/buildmesh/dht/digest"
)

// Uploads are the partial uploads that may be resumed: those being written now, and idle ones whose
// client went away. Idle ones expire, and are bounded in number and bytes.
//
// Safe for concurrent use. Close ends the expiry and drops every idle upload.
type Uploads struct {
	limits Limits

	mu     sync.Mutex // guards everything below, and the busy and idle fields of uploads
	named  map[string]*upload
	idle   *list.List // of *upload, the longest idle first
	bytes  int64      // of the idle ones, as their blobs will have
	closed bool

	timer *time.Timer // fires when the longest idle upload expires
}

// upload is one blob on its way in.
type upload struct {
	name    string
	digest  digest.Digest
	writer  *cas.Writer
	offset  atomic.Int64 // bytes taken, uncompressed; written by the holder alone
	err     error        // of the first Write that failed
	private bool         // not in Uploads.named: another stream has the name
	busy    bool
	since   time.Time     // idle since
	place   *list.Element // in Uploads.idle when idle
}

// NewUploads keeps partial uploads.
func NewUploads(l Limits) *Uploads {
	u := &Uploads{limits: l.withDefaults(), named: map[string]*upload{}, idle: list.New()}
	u.timer = time.AfterFunc(u.limits.IdleFor, u.expire)
	return u
}

// Close drops the idle uploads. Uploads still being written are not kept when they end.
func (u *Uploads) Close() {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.closed = true
	u.timer.Stop()
	for u.idle.Len() > 0 {
		u.drop(u.idle.Front().Value.(*upload))
	}
}

// begin gives the upload into blobs that goes by name, to be written from offset on by the caller alone,
// who ends it with park, commit or abort. An offset of 0 always begins afresh.
func (u *Uploads) begin(ctx context.Context, blobs Streams, name string, d digest.Digest, offset int64) (*upload, error) {
	u.mu.Lock()
	old, known := u.named[name]
	if known && !old.busy {
		if offset == old.offset.Load() {
			u.take(old)
			u.mu.Unlock()
			return old, nil
		}
		if offset == 0 {
			u.drop(old)
			known = false
		}
	}
	fresh := &upload{name: name, digest: d, busy: true, private: known}
	if offset == 0 && !known {
		u.named[name] = fresh
	}
	u.mu.Unlock()
	if offset != 0 {
		return nil, u.refuse(old, offset)
	}
	writer, err := blobs.NewWriter(ctx, d)
	if err != nil {
		u.forget(fresh)
		return nil, err
	}
	fresh.writer = writer
	return fresh, nil
}

// refuse says why an upload cannot go on at offset; old is what goes by its name, or nil.
func (u *Uploads) refuse(old *upload, offset int64) error {
	if old == nil {
		return invalid("write_offset", "%d, but nothing was written", offset)
	}
	committed := old.offset.Load()
	if committed == offset {
		// The stream before this one is about to notice that its client is gone.
		return &RetryError{After: resumeRetry, Reason: "another stream is writing this upload"}
	}
	return invalid("write_offset", "%d, but %d bytes were written", offset, committed)
}

// resumeRetry is when a client should try again to resume an upload that is still being written.
const resumeRetry = 100 * time.Millisecond

// take makes an idle upload busy. The lock is held.
func (u *Uploads) take(p *upload) {
	u.idle.Remove(p.place)
	u.bytes -= p.digest.Size()
	p.place, p.busy = nil, true
}

// drop removes an idle upload. The lock is held.
func (u *Uploads) drop(p *upload) {
	u.take(p)
	delete(u.named, p.name)
	p.writer.Abort()
}

// park ends the caller's hold of p, which may be resumed when there is anything to resume.
func (u *Uploads) park(p *upload) {
	if p.private || p.offset.Load() == 0 {
		u.abort(p)
		return
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	p.busy, p.since = false, time.Now()
	p.place = u.idle.PushBack(p)
	u.bytes += p.digest.Size()
	for u.idle.Len() > 0 && (u.closed || u.idle.Len() > u.limits.MaxIdle || u.bytes > u.limits.MaxIdleBytes) {
		u.drop(u.idle.Front().Value.(*upload))
	}
	if u.idle.Len() == 1 {
		u.timer.Reset(u.limits.IdleFor)
	}
}

// abort ends p and leaves nothing of it.
func (u *Uploads) abort(p *upload) {
	p.writer.Abort()
	u.forget(p)
}

// commit verifies p and makes its blob present. On an error nothing is left of it.
func (u *Uploads) commit(p *upload) error {
	err := p.writer.Commit()
	if err != nil {
		p.writer.Abort()
	}
	u.forget(p)
	return err
}

// forget frees p's name.
func (u *Uploads) forget(p *upload) {
	if p.private {
		return
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	delete(u.named, p.name)
}

// expire drops what has been idle for too long. It runs when the timer fires.
func (u *Uploads) expire() {
	u.mu.Lock()
	defer u.mu.Unlock()
	now := time.Now()
	for u.idle.Len() > 0 {
		oldest := u.idle.Front().Value.(*upload)
		if left := u.limits.IdleFor - now.Sub(oldest.since); left > 0 {
			u.timer.Reset(left)
			return
		}
		u.drop(oldest)
	}
}

// committed gives how many bytes of the named upload were taken, 0 when it is not known.
func (u *Uploads) committed(name string) int64 {
	u.mu.Lock()
	defer u.mu.Unlock()
	if p, ok := u.named[name]; ok {
		return p.offset.Load()
	}
	return 0
}

// Write implements io.Writer: b is the next bytes of the blob.
func (p *upload) Write(b []byte) (int, error) {
	n, err := p.writer.Write(b)
	p.offset.Add(int64(n))
	if errors.Is(err, cas.ErrCorrupt) {
		err = invalid("data", "%v", err)
	}
	if p.err == nil {
		p.err = err
	}
	return n, err
}
