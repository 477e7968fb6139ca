package web

import (
	"net"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
)

// other is the label of methods that no linked protocol defines.
const other = "other"

// Requests counts what a gRPC server is asked. The counters of a method are looked up once.
type Requests struct {
	metrics *Metrics
	methods sync.Map // full method name, known ones only -> *method
}

// Requests gives the observer of a gRPC server.
func (m *Metrics) Requests() *Requests { return &Requests{metrics: m} }

// method is what is counted of one method.
type method struct {
	service, name string
	open          prometheus.Gauge
	duration      prometheus.Observer
}

// Began is called when a call begins, with its full name "/service/method".
func (r *Requests) Began(full string) { r.find(full).open.Inc() }

// Ended is called once for each Began.
func (r *Requests) Ended(full string, code codes.Code, took time.Duration) {
	m := r.find(full)
	m.open.Dec()
	m.duration.Observe(max(took, 0).Seconds())
	r.metrics.requests.WithLabelValues(m.service, m.name, code.String()).Inc()
}

// find gives what is counted of a method.
func (r *Requests) find(full string) *method {
	if m, found := r.methods.Load(full); found {
		return m.(*method)
	}
	service, name, _ := strings.Cut(strings.TrimPrefix(full, "/"), "/")
	if !defined(service, name) {
		return r.counted(other, other)
	}
	m, _ := r.methods.LoadOrStore(full, r.counted(service, name))
	return m.(*method)
}

// counted looks up the counters of a method.
func (r *Requests) counted(service, name string) *method {
	return &method{service, name, r.metrics.open.WithLabelValues(service, name), r.metrics.durations.WithLabelValues(service, name)}
}

// defined reports whether a protocol linked into this binary has the method: a bound on the labels
// that does not depend on the caller.
func defined(service, name string) bool {
	found, err := protoregistry.GlobalFiles.FindDescriptorByName(protoreflect.FullName(service))
	if err != nil {
		return false
	}
	s, ok := found.(protoreflect.ServiceDescriptor)
	return ok && s.Methods().ByName(protoreflect.Name(name)) != nil
}

// Listener counts the bytes that pass through the connections l accepts.
func (m *Metrics) Listener(l net.Listener) net.Listener {
	return &listener{l, m.bytes.WithLabelValues("in"), m.bytes.WithLabelValues("out")}
}

type listener struct {
	net.Listener
	in, out prometheus.Counter
}

// Accept implements net.Listener.
func (l *listener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &conn{c, l.in, l.out}, nil
}

type conn struct {
	net.Conn
	in, out prometheus.Counter
}

// Read implements net.Conn.
func (c *conn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.in.Add(float64(n))
	return n, err
}

// Write implements net.Conn.
func (c *conn) Write(p []byte) (int, error) {
	n, err := c.Conn.Write(p)
	c.out.Add(float64(n))
	return n, err
}
