package web

import (
	"time"

	controlv1 "github.com/buildmesh/buildmesh/proto/control/v1"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
)

// Metrics counts what a node does. It is safe for concurrent use.
type Metrics struct {
	registry  *prometheus.Registry
	requests  *prometheus.CounterVec
	open      *prometheus.GaugeVec
	durations *prometheus.HistogramVec
	bytes     *prometheus.CounterVec
	actions   *prometheus.CounterVec
	phases    *prometheus.HistogramVec
}

// NewMetrics makes metrics with a registry of their own.
func NewMetrics() *Metrics {
	m := &Metrics{
		registry: prometheus.NewRegistry(),
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "buildmesh_requests_total", Help: "Remote Execution requests that ended, by gRPC code.",
		}, []string{"service", "method", "code"}),
		durations: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "buildmesh_request_duration_seconds", Help: "Time from the start of a request to its end.",
			Buckets: prometheus.ExponentialBuckets(0.0001, 4, 11), // 100 us to 105 s
		}, []string{"service", "method"}),
		open: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "buildmesh_requests_open", Help: "Remote Execution requests under way.",
		}, []string{"service", "method"}),
		bytes: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "buildmesh_network_bytes_total", Help: "Bytes on the connections of clients: in from them, out to them.",
		}, []string{"direction"}),
		actions: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "buildmesh_actions_total", Help: "Executions that ended, by outcome.",
		}, []string{"outcome"}),
		phases: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "buildmesh_action_phase_seconds", Help: "Time an action spent queued, staging its inputs, running, collecting its outputs.",
			Buckets: prometheus.ExponentialBuckets(0.0005, 4, 12), // 500 us to 35 min
		}, []string{"phase"}),
	}
	m.registry.MustRegister(m.requests, m.open, m.durations, m.bytes, m.actions, m.phases,
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

// Outcome is how an execution ended.
type Outcome string

// The outcomes.
const (
	Succeeded Outcome = "succeeded"
	Failed    Outcome = "failed"    // ran; exit code not 0, a timeout or a limit
	Fault     Outcome = "fault"     // could not be run
	Cancelled Outcome = "cancelled" // nobody wanted it any more
	Cached    Outcome = "cached"    // answered from the action results
	Merged    Outcome = "merged"    // answered by what a member ran at the same time
)

// Action counts one execution that ended.
func (m *Metrics) Action(o Outcome) { m.actions.WithLabelValues(string(o)).Inc() }

// Phase is a part of an action's life.
type Phase string

// The phases, in order.
const (
	Queued  Phase = "queued"
	Staging Phase = "staging"
	Running Phase = "running"
	Storing Phase = "storing"
)

// Phase notes how long one action spent in a phase.
func (m *Metrics) Phase(p Phase, d time.Duration) {
	m.phases.WithLabelValues(string(p)).Observe(max(d, 0).Seconds())
}

// Watch adds the gauges and counters that are read from the node when asked for.
func (m *Metrics) Watch(s Source) { m.registry.MustRegister(&watcher{source: s, descs: watched()}) }

// watcher collects one reading of a Source.
type watcher struct {
	source Source
	descs  []reading
}

// reading is one number of a status.
type reading struct {
	desc *prometheus.Desc
	kind prometheus.ValueType
	of   func(*controlv1.StatusResponse) float64
}

// watched lists what is read of a status.
func watched() []reading {
	gauge := func(name, help string, of func(*controlv1.StatusResponse) float64) reading {
		return reading{prometheus.NewDesc("buildmesh_"+name, help, nil, nil), prometheus.GaugeValue, of}
	}
	counter := func(name, help string, of func(*controlv1.StatusResponse) float64) reading {
		return reading{prometheus.NewDesc("buildmesh_"+name, help, nil, nil), prometheus.CounterValue, of}
	}
	type status = *controlv1.StatusResponse
	return []reading{
		gauge("store_blobs", "Blobs in the store.", func(s status) float64 { return float64(s.Store.GetBlobs()) }),
		gauge("store_bytes", "Disk taken by blobs in the store.", func(s status) float64 { return float64(s.Store.GetBytes()) }),
		gauge("store_dead_bytes", "Disk of removed blobs not yet given back.", func(s status) float64 { return float64(s.Store.GetDeadBytes()) }),
		gauge("store_max_bytes", "Limit of the store.", func(s status) float64 { return float64(s.Store.GetMaxBytes()) }),
		gauge("store_disk_free_bytes", "Free disk where the store is.", func(s status) float64 { return float64(s.Store.GetDiskFreeBytes()) }),
		counter("store_evicted_blobs_total", "Blobs evicted since the start.", func(s status) float64 { return float64(s.Store.GetEvicted()) }),
		counter("store_corrupt_blobs_total", "Blobs found corrupt since the start.", func(s status) float64 { return float64(s.Store.GetCorrupt()) }),
		gauge("results_entries", "Action results kept.", func(s status) float64 { return float64(s.Results.GetEntries()) }),
		counter("results_hits_total", "Look-ups of action results that found one.", func(s status) float64 { return float64(s.Results.GetHits()) }),
		counter("results_misses_total", "Look-ups of action results that found none.", func(s status) float64 { return float64(s.Results.GetMisses()) }),
		gauge("slots_cores", "Cores lent to actions.", func(s status) float64 { return s.Slots.GetCores() }),
		gauge("slots_cores_busy", "Cores taken by running actions.", func(s status) float64 { return s.Slots.GetCoresBusy() }),
		gauge("slots_memory_bytes", "Memory lent to actions.", func(s status) float64 { return float64(s.Slots.GetMemoryBytes()) }),
		gauge("slots_memory_busy_bytes", "Memory reserved by running actions.", func(s status) float64 { return float64(s.Slots.GetMemoryBusyBytes()) }),
		gauge("actions_running", "Actions running now.", func(s status) float64 { return float64(s.Slots.GetRunning()) }),
		gauge("actions_queued", "Actions waiting for a slot.", func(s status) float64 { return float64(s.Slots.GetQueued()) }),
	}
}

// Describe implements prometheus.Collector.
func (w *watcher) Describe(out chan<- *prometheus.Desc) {
	for _, r := range w.descs {
		out <- r.desc
	}
}

// Collect implements prometheus.Collector: one status, all numbers.
func (w *watcher) Collect(out chan<- prometheus.Metric) {
	s := w.source.Snapshot()
	for _, r := range w.descs {
		out <- prometheus.MustNewConstMetric(r.desc, r.kind, r.of(s))
	}
}
