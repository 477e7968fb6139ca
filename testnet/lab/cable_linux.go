package lab

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Link is what the wires between groups do to frames.
type Link struct {
	Delay time.Duration // each way, between any two groups
	Loss  float64       // share of the frames that vanish, each way, 0 to 1
	Rate  int64         // bytes a second of each group's wire, each way; 0: as fast as it goes
}

// backlog is how many frames wait in one direction of a cable before further ones are dropped, as a router does.
const backlog = 4096

// cable joins one segment with the first by two tap devices between which this process carries frames.
type cable struct {
	ends [2]*os.File
	gone chan struct{} // closed by close
	wait sync.WaitGroup
}

// frame is one frame under way and when it arrives.
type frame struct {
	data []byte
	due  time.Time
}

// newCable lays a wire with half of the link's delay and of its loss: between two groups there are two of them. What comes
// from the segment is counted.
func newCable(s *space, segment int, link Link, seed uint64, crossed *traffic) (*cable, error) {
	c := &cable{gone: make(chan struct{})}
	for i, on := range []int{0, segment} {
		name := fmt.Sprintf("wire%d.%d", segment, i)
		end, err := openTap(s, name)
		if err == nil {
			c.ends[i] = end
			err = s.ip(fmt.Sprintf("link set %s master %s up", name, bridge(on)))
		}
		if err != nil {
			c.close()
			return nil, fmt.Errorf("slow wire: %w", err)
		}
	}
	half := Link{Delay: link.Delay / 2, Loss: link.Loss / 2, Rate: link.Rate}
	for i := range c.ends {
		flow := make(chan frame, backlog)
		random := rand.New(rand.NewPCG(seed, uint64(i)))
		seen := func([]byte) {}
		if i > 0 {
			seen = crossed.note
		}
		c.wait.Go(func() { listen(wireEnd{c.ends[i], seen}, flow, half, random) })
		c.wait.Go(func() { c.deliver(c.ends[1-i], flow) })
	}
	return c, nil
}

// openTap makes a tap device in the namespace.
func openTap(s *space, name string) (file *os.File, err error) {
	err = s.do(func() error {
		fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
		if err != nil {
			return fmt.Errorf("open /dev/net/tun: %w", err)
		}
		request, err := unix.NewIfreq(name)
		if err != nil {
			return errors.Join(err, unix.Close(fd))
		}
		request.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI)
		if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, request); err != nil {
			return errors.Join(fmt.Errorf("make tap %s: %w", name, err), unix.Close(fd))
		}
		file = os.NewFile(uintptr(fd), name)
		return nil
	})
	return file, err
}

// wireEnd is where frames come in.
type wireEnd struct {
	*os.File
	seen func(frame []byte) // told of each
}

// listen takes frames from one end and says when each arrives, until the end is closed.
func listen(from wireEnd, flow chan<- frame, link Link, random *rand.Rand) {
	defer close(flow)
	buffer := make([]byte, 1<<16)
	var busy time.Time // until when the frames taken so far occupy the wire
	for {
		size, err := from.Read(buffer)
		if err != nil {
			return
		}
		from.seen(buffer[:size])
		if link.Loss > 0 && random.Float64() < link.Loss {
			continue
		}
		now := time.Now()
		if busy.Before(now) {
			busy = now
		}
		if link.Rate > 0 {
			busy = busy.Add(time.Duration(int64(size) * int64(time.Second) / link.Rate))
		}
		select {
		case flow <- frame{append([]byte(nil), buffer[:size]...), busy.Add(link.Delay)}:
		default:
		}
	}
}

// deliver puts frames out at the other end, each when it is due, until there are no more or the cable is gone.
func (c *cable) deliver(to *os.File, flow <-chan frame) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for f := range flow {
		timer.Reset(time.Until(f.due))
		select {
		case <-timer.C:
			_, _ = to.Write(f.data) // an end that is closed or full loses the frame
		case <-c.gone:
			return
		}
	}
}

// close removes the wire and what is on it.
func (c *cable) close() {
	close(c.gone)
	for _, end := range c.ends {
		if end != nil {
			_ = end.Close()
		}
	}
	c.wait.Wait()
}
