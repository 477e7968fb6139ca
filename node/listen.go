package node

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"path/filepath"
	"syscall"

	"github.com/buildmesh/buildmesh/node/bridge"
	"github.com/buildmesh/buildmesh/node/control"
	"github.com/buildmesh/buildmesh/node/doctor"
	"github.com/buildmesh/buildmesh/node/reapi"
	"github.com/buildmesh/buildmesh/node/web"
	controlv1 "github.com/buildmesh/buildmesh/proto/control/v1"
)

// openEndpoint makes the Remote Execution endpoint and listens.
func (n *Node) openEndpoint(context.Context) error {
	endpoint, err := reapi.New(reapi.Config{
		Blobs: n.store, Within: n.within, Results: notedResults{n.clientResults(), n.bridge, n.journal}, Features: n.features(),
		Limits: reapi.Limits{MaxBlob: n.maxBlob()},
		Name:   n.config.Node.Name, Logs: n.logs, Observer: n.metrics.Requests(), Log: n.log,
	})
	if err != nil {
		return fmt.Errorf("open endpoint: %w", err)
	}
	n.endpoint = endpoint
	n.onClose("endpoint", func() error { n.drain(); return nil })
	n.register()
	if address := n.config.Listen.GRPC; address != "" {
		l, err := listenLoopback("listen.grpc", "--listen", address)
		if err != nil {
			return err
		}
		n.grpcAt = l.Addr().String()
		endpoint.Add(n.metrics.Listener(l))
	}
	if path := n.config.Listen.Socket; path != "" {
		l, err := control.ListenUnix(path)
		if err != nil {
			return fmt.Errorf("listen.socket: %w", err)
		}
		endpoint.Add(n.metrics.Listener(l))
	}
	return nil
}

// maxBlob is the largest blob the store takes.
func (n *Node) maxBlob() int64 {
	if m := int64(n.config.Store.MaxBlob); m > 0 {
		return m
	}
	return n.store.Stat().MaxBytes
}

// openWeb listens for metrics, health and the status page.
func (n *Node) openWeb(context.Context) error {
	if n.config.Listen.Web == "" {
		return nil
	}
	l, err := listenLoopback("listen.web", "--web", n.config.Listen.Web)
	if err != nil {
		return err
	}
	n.webAt, n.web = l, web.Server(web.Handler(n.metrics, n, web.Page{Path: bridge.TreePath, Handler: http.HandlerFunc(n.bridge.ServeTree)}))
	n.onClose("web", func() error {
		ctx, cancel := context.WithTimeout(context.Background(), goodbye)
		defer cancel()
		err := n.web.Shutdown(ctx)
		if errors.Is(err, context.DeadlineExceeded) {
			err = n.web.Close()
		}
		l.Close() // when it was never served
		return err
	})
	return nil
}

// openControl listens for the command line.
func (n *Node) openControl(context.Context) error {
	server, err := control.Listen(filepath.Join(n.config.Dir.Runtime, control.File), answers{n})
	if err != nil {
		return err
	}
	controlv1.RegisterMeshServer(server.Registrar(), meshAnswers{node: n})
	controlv1.RegisterPeersServer(server.Registrar(), peersAnswers{node: n})
	controlv1.RegisterContentServer(server.Registrar(), contentAnswers{node: n})
	controlv1.RegisterArchiveServer(server.Registrar(), archiveAnswers{node: n})
	controlv1.RegisterLendingServer(server.Registrar(), lendingAnswers{lending: n.lending})
	controlv1.RegisterJournalServer(server.Registrar(), journalAnswers{node: n})
	n.control = server
	n.onClose("control", func() error { server.Close(goodbye); return nil })
	return nil
}

// listenLoopback listens on host:port, which must not be reachable from other machines; who has the
// port already is part of the error, and the flag to choose another.
func listenLoopback(key, flag, address string) (net.Listener, error) {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return nil, fmt.Errorf("%s = %q is not host:port; give one with %s", key, address, flag)
	}
	if ip := net.ParseIP(host); host != "localhost" && (ip == nil || !ip.IsLoopback()) {
		return nil, fmt.Errorf("%s = %q is no loopback address: others could use the node without a password", key, address)
	}
	l, err := net.Listen("tcp", address)
	if err == nil {
		return l, nil
	}
	if !errors.Is(err, syscall.EADDRINUSE) {
		return nil, fmt.Errorf("%s: %w", key, err)
	}
	who := doctor.Holder(address)
	if who == "" {
		who = "another process"
	}
	return nil, fmt.Errorf("%s: %s is taken by %s; choose another with %s HOST:PORT", key, address, who, flag)
}
