package recorded

import (
	"encoding/binary"
	"fmt"

	"golang.org/x/sys/unix"
)

// Tier says how much of a step is answered from records.
type Tier string

// The tiers. TierFull is the only one whose images are right whatever a step does.
const (
	// TierFull records owners and shows them.
	TierFull Tier = "full"
	// TierRecord records owners, but stat(2) shows the one id that there is: what
	// copies or checks owners goes wrong, and what looks at many files is as
	// fast as ever.
	TierRecord Tier = "record"
	// TierSquash lets every change of owner succeed and gives all to root.
	TierSquash Tier = "squash"
)

// ParseTier reads the value of --ownership; "" is TierFull.
func ParseTier(text string) (Tier, error) {
	switch t := Tier(text); t {
	case "":
		return TierFull, nil
	case TierFull, TierRecord, TierSquash:
		return t, nil
	}
	return "", fmt.Errorf("ownership %q: want full, record or squash", text)
}

// What a filter returns, linux/seccomp.h.
const (
	retKill   = 0x80000000
	retErrno  = 0x00050000
	retNotify = 0x7fc00000
	retAllow  = 0x7fff0000
)

// Offsets in struct seccomp_data, on a little-endian machine.
const (
	dataNumber = 0
	dataArch   = 4
	dataArgs   = 16
)

// tmpfileBit is what O_TMPFILE has beside O_DIRECTORY.
const tmpfileBit = unix.O_TMPFILE &^ unix.O_DIRECTORY

// Commands of prctl(2) and getsockopt(2) that are looked at.
const soPeercred = unix.SO_PEERCRED

var prctlCommands = []uint32{unix.PR_GET_KEEPCAPS, unix.PR_SET_KEEPCAPS, unix.PR_SET_TIMERSLACK, unix.PR_GET_TIMERSLACK}

// program assembles a filter.
type program struct{ code []unix.SockFilter }

func (p *program) op(code uint16, k uint32, jt, jf uint8) {
	p.code = append(p.code, unix.SockFilter{Code: code, K: k, Jt: jt, Jf: jf})
}

func (p *program) load(offset uint32) { p.op(unix.BPF_LD|unix.BPF_W|unix.BPF_ABS, offset, 0, 0) }
func (p *program) ret(value uint32)   { p.op(unix.BPF_RET|unix.BPF_K, value, 0, 0) }

// when returns value for system calls of that number.
func (p *program) when(number int, value uint32) {
	p.op(unix.BPF_JMP|unix.BPF_JEQ|unix.BPF_K, uint32(number), 0, 1)
	p.ret(value)
}

// whenBits notifies of calls whose argument has one of the bits.
func (p *program) whenBits(number, arg int, bits uint32) {
	p.op(unix.BPF_JMP|unix.BPF_JEQ|unix.BPF_K, uint32(number), 0, 4)
	p.load(argument(arg))
	p.op(unix.BPF_JMP|unix.BPF_JSET|unix.BPF_K, bits, 0, 1)
	p.ret(retNotify)
	p.ret(retAllow)
}

// whenOneOf notifies of calls whose argument is one of values.
func (p *program) whenOneOf(number, arg int, values []uint32) {
	p.op(unix.BPF_JMP|unix.BPF_JEQ|unix.BPF_K, uint32(number), 0, uint8(2+2*len(values)))
	p.load(argument(arg))
	for _, v := range values {
		p.op(unix.BPF_JMP|unix.BPF_JEQ|unix.BPF_K, v, 0, 1)
		p.ret(retNotify)
	}
	p.ret(retAllow)
}

func argument(i int) uint32 { return uint32(dataArgs + 8*i) }

// Filter returns the program that hands a step's calls to a Supervisor. Programs
// of another architecture than the machine's are killed, as nothing would be
// recorded of them; what could do without system calls is refused. kept says that
// there are links and FIFOs that have owners when the step starts.
func Filter(t Tier, kept bool) []byte {
	p := &program{}
	p.load(dataArch)
	p.op(unix.BPF_JMP|unix.BPF_JEQ|unix.BPF_K, auditArch, 1, 0)
	p.ret(retKill)
	p.load(dataNumber)
	if foreignABI != 0 {
		p.op(unix.BPF_JMP|unix.BPF_JGE|unix.BPF_K, foreignABI, 0, 1)
		p.ret(retErrno | uint32(unix.ENOSYS))
	}
	p.when(unix.SYS_IO_URING_SETUP, retErrno|uint32(unix.EPERM))
	for _, n := range newXattrCalls {
		p.when(n, retErrno|uint32(unix.ENOSYS))
	}
	for n, c := range calls {
		if c.handle != nil && c.in(t, kept) && c.simple {
			p.when(n, retNotify)
		}
	}
	if t != TierSquash {
		for n, arg := range openCalls {
			p.whenBits(n, arg, unix.O_CREAT|tmpfileBit)
		}
	}
	p.whenOneOf(unix.SYS_PRCTL, 0, prctlCommands)
	p.whenOneOf(unix.SYS_GETSOCKOPT, 2, []uint32{soPeercred})
	p.ret(retAllow)
	return p.bytes()
}

func (p *program) bytes() []byte {
	b := make([]byte, 0, 8*len(p.code))
	for _, i := range p.code {
		b = binary.NativeEndian.AppendUint16(b, i.Code)
		b = append(b, i.Jt, i.Jf)
		b = binary.NativeEndian.AppendUint32(b, i.K)
	}
	return b
}
