package initproc

import "golang.org/x/sys/unix"

const nativeArch = unix.AUDIT_ARCH_AARCH64

func (p *program) foreignNumbers() {}
