// Package web is what a node shows over HTTP on loopback: metrics, health and one page of status.
//
// Nouns: Metrics (counters of requests and actions, with their own registry), Source (whom the page
// and the gauges ask), Handler (the addresses), Page (one
// that another package adds).
//
//	/metrics  Prometheus text
//	/healthz  200 "ok", or 503 and the reason while the node drains or its store is broken
//	/         the status as a page for people, without script
//	/tree/    trees of the store as tars: node/bridge adds it
//
// Promises:
//   - No label ever holds a digest, a target, an instance name or a peer: their number is not bounded.
//     A request for a method nobody registered counts under "other".
//   - A page of another site cannot read anything here: requests must carry a Host header that names
//     this machine by address or "localhost" (against DNS rebinding), and no answer allows another
//     origin.
//   - GET and HEAD only; nothing here changes the node.
//
// What it does not do: it samples nothing in the background; gauges are read when asked for.
//
// Start reading at web.go, Handler; metrics are named in metrics.go. The test that shows it whole is
// TestHandler.
package web
