package bridge

import _ "embed"

// PluginFile is the file that BuildStream looks for when a project uses a source of the kind mesh_cas.
const PluginFile = "mesh_cas.py"

// Plugin is BuildStream's source plugin mesh_cas.
//
//go:embed mesh_cas.py
var Plugin []byte

// PluginConf is what project.conf needs to have for a plugin in the project's folder plugins.
const PluginConf = `plugins:
- origin: local
  path: plugins
  sources:
  - mesh_cas
`
