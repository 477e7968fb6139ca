package web

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	controlv1 "github.com/buildmesh/buildmesh/proto/control/v1"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// fakeSource shows what it holds.
type fakeSource struct {
	status    *controlv1.StatusResponse
	unhealthy error
}

func (f *fakeSource) Snapshot() *controlv1.StatusResponse { return f.status }
func (f *fakeSource) Unhealthy() error                    { return f.unhealthy }
func (f *fakeSource) Neighbours() []*controlv1.Peer {
	return []*controlv1.Peer{
		{Name: "<b>ben</b>", State: "alive", Since: timestamppb.Now(), Facts: &controlv1.PeerFacts{State: "ready", Cores: 8, CoresFree: 6}},
		{Name: "dan", State: "alive", Since: timestamppb.Now(), Facts: &controlv1.PeerFacts{State: "paused", Reason: "paused"}},
		{Name: "cai", State: "dead", Reason: "no answer", Since: timestamppb.Now()},
	}
}

// busy is the status of a node at work; its texts try to be markup.
func busy() *controlv1.StatusResponse {
	return &controlv1.StatusResponse{
		Name: "ana's <b>laptop</b>", PeerId: "12D3KooW", Started: timestamppb.Now(), GrpcAddress: "127.0.0.1:8980",
		Sandbox: &controlv1.Sandbox{Tier: "A", Groups: "v2"},
		Mesh:    &controlv1.MeshStatus{Name: "office", Alive: 1, Dead: 1, Problems: []*controlv1.Problem{{Text: "cai is gone", Fix: "buildmesh peers cai"}}},
		Lending: &controlv1.LendingResponse{State: "throttled", Reason: "somebody uses the machine", Guests: 2},
		Store:   &controlv1.Store{Blobs: 1234, Bytes: 3 << 30, MaxBytes: 6 << 30, Evicted: 17},
		Results: &controlv1.Results{Entries: 9, Hits: 8, Misses: 7},
		Slots:   &controlv1.Slots{Cores: 2, CoresBusy: 1.5, Queued: 4},
		Actions: &controlv1.Actions{Succeeded: 5},
		Flights: []*controlv1.Flight{{Stage: "executing", Target: "//a:<script>alert(1)</script>", Worker: "cai"}},
	}
}

// get asks h for path with a Host header.
func get(t *testing.T, h http.Handler, host, path string) (int, string, http.Header) {
	t.Helper()
	r := httptest.NewRequest(http.MethodGet, path, nil)
	r.Host = host
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	body, err := io.ReadAll(w.Result().Body)
	if err != nil {
		t.Fatal(err)
	}
	return w.Code, string(body), w.Header()
}

func TestHandler(t *testing.T) {
	source := &fakeSource{status: busy()}
	m := NewMetrics()
	m.Watch(source)
	h := Handler(m, source)

	code, body, header := get(t, h, "127.0.0.1:8981", "/")
	for _, want := range []string{"ana&#39;s", "grpc://127.0.0.1:8980", "1,234, 3.0 GiB of 6.0 GiB (50 %)", "tier A", "1.5 of 2 cores",
		"office; 1 up, 0 suspect, 1 gone", "throttled: somebody uses the machine; 2 actions of others run here",
		"&lt;b&gt;ben", "6 of 8 cores free", ", no answer", "ms; paused\n", "&lt;/script&gt;, on cai", "html { color-scheme: light dark }", "cai is gone; see: buildmesh peers cai"} {
		if !strings.Contains(body, want) {
			t.Errorf("the page lacks %q:\n%s", want, body)
		}
	}
	if code != http.StatusOK || strings.Contains(body, "<script>") || strings.Contains(body, "<b>") {
		t.Errorf("status %d, or a client's text became markup", code)
	}
	if header.Get("Access-Control-Allow-Origin") != "" || !strings.Contains(header.Get("Content-Security-Policy"), "default-src 'none'") {
		t.Errorf("headers %v", header)
	}

	if code, body, _ := get(t, h, "localhost:8981", "/healthz"); code != http.StatusOK || body != "ok\n" {
		t.Errorf("healthz: %d %q", code, body)
	}
	source.unhealthy = errors.New("draining")
	if code, body, _ := get(t, h, "localhost:8981", "/healthz"); code != http.StatusServiceUnavailable || body != "draining\n" {
		t.Errorf("healthz of an unhealthy node: %d %q", code, body)
	}
	if code, _, _ := get(t, h, "localhost", "/other"); code != http.StatusNotFound {
		t.Errorf("an unknown path gives %d", code)
	}
	w := httptest.NewRecorder()
	post := httptest.NewRequest(http.MethodPost, "/", nil)
	post.Host = "localhost"
	if h.ServeHTTP(w, post); w.Code != http.StatusMethodNotAllowed {
		t.Errorf("POST gives %d", w.Code)
	}
}

func TestEmptyStatus(t *testing.T) {
	source := &fakeSource{status: &controlv1.StatusResponse{}}
	m := NewMetrics()
	m.Watch(source)
	h := Handler(m, source)
	if code, body, _ := get(t, h, "[::1]:1", "/"); code != http.StatusOK || !strings.Contains(body, "</html>") {
		t.Errorf("page of an empty status: %d\n%s", code, body)
	}
	if code, _, _ := get(t, h, "[::1]:1", "/metrics"); code != http.StatusOK {
		t.Errorf("metrics of an empty status: %d", code)
	}
}

func TestGuard(t *testing.T) {
	h := guard(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "in") }))
	for host, want := range map[string]int{
		"127.0.0.1:8981": 200, "127.0.0.1": 200, "localhost:8981": 200, "LOCALHOST": 200, "[::1]:8981": 200, "[::1]": 200, "192.168.1.7:8981": 200,
		"evil.example:8981": 403, "evil.example": 403, "localhost.evil.example": 403, "": 403, "127.0.0.1.evil.example": 403,
	} {
		if code, _, _ := get(t, h, host, "/"); code != want {
			t.Errorf("Host %q gives %d, want %d", host, code, want)
		}
	}
}

// scrape is the text of /metrics.
func scrape(t *testing.T, m *Metrics) string {
	t.Helper()
	_, body, _ := get(t, Handler(m, &fakeSource{status: busy()}), "localhost", "/metrics")
	return body
}

func TestMetrics(t *testing.T) {
	m := NewMetrics()
	m.Watch(&fakeSource{status: busy()})
	m.Action(Succeeded)
	m.Action(Succeeded)
	m.Action(Failed)
	m.Phase(Staging, 2*time.Millisecond)
	m.Phase(Staging, -time.Second) // a clock that stepped back
	text := scrape(t, m)
	for _, want := range []string{
		"buildmesh_store_blobs 1234\n", "buildmesh_store_evicted_blobs_total 17\n", "buildmesh_results_hits_total 8\n",
		"buildmesh_actions_queued 4\n", "buildmesh_slots_cores_busy 1.5\n",
		"buildmesh_actions_total{outcome=\"succeeded\"} 2\n", "buildmesh_action_phase_seconds_count{phase=\"staging\"} 2\n",
		"go_goroutines ",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("metrics lack %q", want)
		}
	}
}

func TestRequests(t *testing.T) {
	m := NewMetrics()
	r := m.Requests()
	call := func(method string, code codes.Code) {
		r.Began(method)
		r.Ended(method, code, time.Millisecond)
	}
	const service = "buildmesh.control.v1.Control"
	call("/"+service+"/Status", codes.OK)
	call("/"+service+"/Status", codes.NotFound)
	for i := range 100 { // names a client made up
		call(fmt.Sprintf("/made.up.Service%d/Method", i), codes.Unimplemented)
		call(fmt.Sprintf("/%s/Method%d", service, i), codes.Unimplemented)
	}
	call("nonsense", codes.Unimplemented)
	r.Began("/" + service + "/Doctor")
	text := scrape(t, m)
	for _, want := range []string{
		`buildmesh_requests_total{code="OK",method="Status",service="` + service + `"} 1`,
		`buildmesh_requests_total{code="NotFound",method="Status",service="` + service + `"} 1`,
		`buildmesh_requests_total{code="Unimplemented",method="other",service="other"} 201`,
		`buildmesh_request_duration_seconds_count{method="Status",service="` + service + `"} 2`,
		`buildmesh_requests_open{method="Status",service="` + service + `"} 0`,
		`buildmesh_requests_open{method="Doctor",service="` + service + `"} 1`,
	} {
		if !strings.Contains(text, want) {
			t.Errorf("metrics lack %s", want)
		}
	}
	if strings.Contains(text, "made.up") || strings.Contains(text, "Method1") {
		t.Error("a name a client made up became a label")
	}
}

func TestListener(t *testing.T) {
	plain, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	m := NewMetrics()
	l := m.Listener(plain)
	client, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	server, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	client.Write([]byte("hello"))
	client.Close()
	if got, err := io.ReadAll(server); err != nil || string(got) != "hello" {
		t.Fatalf("%q, %v", got, err)
	}
	server.Write([]byte("you"))
	server.Close()
	l.Close()
	if _, err := l.Accept(); err == nil {
		t.Error("a closed listener accepts")
	}
	text := scrape(t, m)
	for _, want := range []string{`buildmesh_network_bytes_total{direction="in"} 5`, `buildmesh_network_bytes_total{direction="out"} 3`} {
		if !strings.Contains(text, want) {
			t.Errorf("metrics lack %s", want)
		}
	}
}
