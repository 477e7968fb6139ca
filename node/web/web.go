package web

import (
	"bytes"
	_ "embed"
	"fmt"
	"html/template"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/buildmesh/buildmesh/node/human"
	controlv1 "github.com/buildmesh/buildmesh/proto/control/v1"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// Source is whom the page and the gauges ask. Its methods are called from many goroutines.
type Source interface {
	// Snapshot is the node's status now.
	Snapshot() *controlv1.StatusResponse
	// Neighbours are the other members of the mesh; none when there is no mesh.
	Neighbours() []*controlv1.Peer
	// Unhealthy says why the node should get no new work; nil when it should.
	Unhealthy() error
}

//go:embed page.html
var page string

// view is what the page shows.
type view struct {
	*controlv1.StatusResponse
	Peers []*controlv1.Peer
}

// Page is one more thing to serve, for GET and HEAD.
type Page struct {
	Path    string // a pattern of http.ServeMux, without the method
	Handler http.Handler
}

// Handler serves metrics, health, the status page, and what others add.
func Handler(m *Metrics, s Source, more ...Page) http.Handler {
	tmpl := template.Must(template.New("page").Funcs(template.FuncMap{
		"bytes": human.Bytes, "count": human.Count, "cores": human.Cores, "percent": human.Percent, "since": since, "state": human.State,
	}).Parse(page))
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{}))
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		if err := s.Unhealthy(); err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
		fmt.Fprintln(w, "ok")
	})
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) {
		var out bytes.Buffer
		if err := tmpl.Execute(&out, view{s.Snapshot(), s.Neighbours()}); err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		w.Header().Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'")
		w.Write(out.Bytes())
	})
	for _, p := range more {
		mux.Handle("GET "+p.Path, p.Handler)
	}
	return guard(mux)
}

// guard refuses requests whose Host header is a name: a foreign page whose name was made to resolve
// to this machine would send that name.
func guard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		host := r.Host
		if h, _, err := net.SplitHostPort(host); err == nil {
			host = h
		}
		host = strings.Trim(host, "[]")
		if !strings.EqualFold(host, "localhost") && net.ParseIP(host) == nil {
			http.Error(w, "this node answers to its address and to localhost only", http.StatusForbidden)
			return
		}
		w.Header().Set("X-Content-Type-Options", "nosniff")
		w.Header().Set("Cache-Control", "no-store")
		next.ServeHTTP(w, r)
	})
}

// Server makes an HTTP server that gives up on slow and idle clients.
func Server(h http.Handler) *http.Server {
	return &http.Server{Handler: h, ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 10 * time.Second,
		WriteTimeout: 30 * time.Second, IdleTimeout: time.Minute, MaxHeaderBytes: 16 << 10}
}

// since is how long ago a moment was.
func since(t *timestamppb.Timestamp) string { return human.Age(time.Since(t.AsTime())) }
