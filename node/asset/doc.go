// Package asset is the node's Remote Asset endpoint: the Fetch and Push services over gRPC.
//
// Nouns: Service (both services), qualifiers (what narrows a URI down, checked), integrity (checksums of
// the qualifier checksum.sri), downloader (brings in http and https URIs), flight (one download that
// several calls wait for), UpstreamError (a failure of somebody else's), Origin (answers URIs that are the
// node's own).
//
// FetchBlob, in steps:
//
//  1. check URIs, qualifiers, digest function
//  2. an asset known by one of the URIs and exactly these qualifiers, young enough and complete: done
//  3. a URI of the node's own: its Origin makes the content, which is never too old
//  4. no http or https URI: NOT_FOUND; other schemes are names, which are never contacted
//  5. download from the URIs in turn until one delivers what the checksum says; remember it
//
// Promises:
//   - What a response names is in the blob store, complete, and kept alive by the index of assets.
//   - Failures upstream are in response.status, with the URI; everything else is a gRPC error. An
//     unsupported qualifier is INVALID_ARGUMENT with one violation for each.
//   - A download connects only to public addresses and those allowed in Options, whatever names,
//     resolvers and redirects say: the address itself is checked when it is dialed.
//   - Headers a client gives for a URI are not sent to another host that it redirects to, and are
//     stored nowhere.
//   - A blob is pushed under checksum.sri only if it has that checksum, and nothing under the node's own URIs.
//   - One download at a time of the same URI with the same qualifiers. It goes on when its callers
//     leave, until its timeout or Close.
//
// What it does not do: it unpacks no archives and clones no repositories (FetchDirectory knows what
// was pushed and what is the node's own), uses no proxy, and trusts whoever pushes.
//
// Source: build.bazel.remote.asset.v1; qualifiers.md beside it; Bazel's remote downloader for
// bazel.canonical_id, http_header and http_header_url.
//
// Start reading at fetch.go, Service.FetchBlob. The test that shows it whole is TestBuildStream; for
// downloads TestDownload.
package asset
