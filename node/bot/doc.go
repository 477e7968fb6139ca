// Package bot is the node's endpoint for bots: the Bots service of the Remote Workers API over gRPC.
//
// Noun: Service (CreateBotSession, UpdateBotSession), over what exec/bot decides.
//
// Promises:
//   - UpdateBotSession answers when there is something new for the bot, and after half a minute otherwise.
//   - A session that is not known begins with an update of it: buildbox-worker would end otherwise
//     whenever the node was started anew.
//   - What of a message makes no sense is INVALID_ARGUMENT with the field's name.
//
// What it does not do: it keeps no state, looks at no instance name (one node is one instance), ignores
// update_mask, since bots send sessions whole, and authenticates nobody: it listens where the rest of
// the endpoint does.
//
// Source: google.devtools.remoteworkers.v1test2, service Bots; buildbox-worker 1.4 as observed: capacity
// and priority are configs of its worker, and a status that is not given means that it is ready.
//
// Start reading at service.go. The test that shows it whole is TestSession.
package bot
