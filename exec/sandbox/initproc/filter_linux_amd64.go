package initproc

import "golang.org/x/sys/unix"

const nativeArch = unix.AUDIT_ARCH_X86_64

// x32Bit marks the numbers of the x32 interface, which would pass by every rule.
const x32Bit = 0x40000000

func (p *program) foreignNumbers() {
	p.add(unix.BPF_JMP|unix.BPF_JGE|unix.BPF_K, 0, 1, x32Bit)
	p.ret(errno(unix.ENOSYS))
	for _, nr := range [...]uint32{unix.SYS_IOPL, unix.SYS_IOPERM, unix.SYS_MODIFY_LDT, unix.SYS_CREATE_MODULE, unix.SYS_USELIB, unix.SYS__SYSCTL} {
		p.when(nr, errno(unix.EPERM))
	}
}
