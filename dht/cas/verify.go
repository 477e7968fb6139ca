package cas

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"syscall"
	"time"

	"github.com/buildmesh/buildmesh/dht/digest"
	"github.com/buildmesh/buildmesh/dht/record"
)

// Verify hashes every blob that is present when it starts. Those that are damaged or cannot be read are moved to
// quarantine or, when small, dropped; either way they are no longer present. Leases are not renewed.
func (s *Store) Verify(ctx context.Context, o VerifyOptions) (Report, error) {
	var report Report
	pace := &pacer{ctx: ctx, rate: o.BytesPerSecond, start: time.Now()}
	for cursor := uint32(0); ; {
		entries, next, err := s.log.Entries(cursor, 256)
		if err != nil {
			return report, fmt.Errorf("verify: %w", err)
		}
		for _, e := range entries {
			if err := s.verifyEntry(e, pace, &report); err != nil {
				return report, fmt.Errorf("verify: %w", err)
			}
		}
		if o.Progress != nil {
			o.Progress(report.Blobs, report.Bytes)
		}
		if next == 0 {
			return report, nil
		}
		cursor = next
	}
}

// verifyEntry hashes one blob and counts it; one that left meanwhile is not counted. What looks
// damaged is looked at again under a pin: an eviction in between looks the same.
func (s *Store) verifyEntry(e record.Entry, pace *pacer, report *Report) error {
	d := DigestOf(e.Key, e.Size)
	err := s.verifyContent(e, d, pace)
	if damaged(err) && e.External {
		pin, missing := s.Pin([]digest.Digest{d})
		defer pin.Release()
		if len(missing) > 0 {
			return nil
		}
		err = s.verifyContent(e, d, pace)
	}
	switch {
	case err == nil:
	case errors.Is(err, ErrNotFound):
		return nil
	case damaged(err):
		report.Corrupt = append(report.Corrupt, d)
		err = s.quarantine(d)
	}
	report.Blobs++
	report.Bytes += d.Size()
	return err
}

// damaged tells errors of one blob from those of the store. A sector that cannot be read takes its blob, not the pass over
// all others.
func damaged(err error) bool {
	return errors.Is(err, syscall.EIO) || errors.Is(err, ErrCorrupt) || errors.Is(err, record.ErrCorrupt) || errors.Is(err, fs.ErrNotExist)
}

// verifyContent hashes what is stored for d. Errors: ErrNotFound when it has left.
func (s *Store) verifyContent(e record.Entry, d digest.Digest, pace *pacer) error {
	if e.External {
		return s.verifyFiles(d, e.Doubled, pace)
	}
	data, err := s.log.Read(e.Key)
	switch {
	case err != nil:
		return err
	case data == nil:
		return ErrNotFound
	}
	if err := pace.spend(len(data)); err != nil {
		return err
	}
	return Blob{Digest: d, Data: data}.Check()
}

func (s *Store) verifyFiles(d digest.Digest, doubled bool, pace io.Writer) error {
	path := s.files.path(KeyOf(d))
	err := s.files.verify(path, d, pace)
	if err == nil && doubled {
		err = s.files.verify(path+copySuffix, d, pace)
	}
	return err
}

// quarantine takes a damaged blob out of the store.
func (s *Store) quarantine(d digest.Digest) error {
	key := KeyOf(d)
	info := s.log.Peek(key)
	if !matches(info, d) {
		return nil
	}
	if info.External {
		s.files.setAside(key)
	} else {
		s.files.corrupt.Add(1)
	}
	_, err := s.log.Delete(key)
	return err
}

// pacer bounds the rate of a pass over the store.
type pacer struct {
	ctx   context.Context
	rate  int64 // bytes per second; 0 is no bound
	start time.Time
	spent int64
}

// Write counts p.
func (p *pacer) Write(b []byte) (int, error) { return len(b), p.spend(len(b)) }

// spend waits until n more bytes keep within the rate.
func (p *pacer) spend(n int) error {
	p.spent += int64(n)
	if p.rate <= 0 {
		return p.ctx.Err()
	}
	due := p.start.Add(time.Duration(float64(p.spent) / float64(p.rate) * float64(time.Second)))
	wait := time.Until(due)
	if wait <= 0 {
		return p.ctx.Err()
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-p.ctx.Done():
		return p.ctx.Err()
	case <-timer.C:
		return nil
	}
}

// Collect evicts and compacts down to the limits, makes everything durable, and gives the bytes of
// disk freed. Errors: ErrFull when the limits cannot be kept because of leases and pins.
func (s *Store) Collect(ctx context.Context) (int64, error) {
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	freed, err := s.log.Collect()
	if err != nil {
		return freed, fmt.Errorf("collect: %w", err)
	}
	return freed, nil
}
