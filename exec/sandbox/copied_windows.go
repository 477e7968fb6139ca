package sandbox

// copiedMode is added to the mode of copied inputs. A file without it could not even be replaced by an action: Windows does
// not delete what is read-only.
const copiedMode = 0o200
