package recorded

import (
	"encoding/binary"
	"fmt"

	"golang.org/x/sys/unix"
)

// Tier is the value of --ownership. It selects the system calls of a step that are
// answered from records.
type Tier string

// These are the tiers. Only TierFull creates a correct image from every step.
const (
	// TierFull records owners and shows them to the step.
	TierFull Tier = "full"
	// TierRecord records owners, but stat(2) shows the only mapped id, root, as the owner
	// of every file. Programs that copy or check owners go wrong. Programs that look at
	// many files are as fast as without records.
	TierRecord Tier = "record"
	// TierSquash reports success for every change of owner, and all files belong to root.
	TierSquash Tier = "squash"
)

// ParseTier returns the Tier with the name text. An empty text means TierFull. It returns
// an error for any other text that is not the name of a tier.
func ParseTier(text string) (Tier, error) {
	switch t := Tier(text); t {
	case "":
		return TierFull, nil
	case TierFull, TierRecord, TierSquash:
		return t, nil
	}
	return "", fmt.Errorf("ownership %q: want full, record or squash", text)
}

// Return values of a filter, from linux/seccomp.h.
const (
	retKill   = 0x80000000
	retErrno  = 0x00050000
	retNotify = 0x7fc00000
	retAllow  = 0x7fff0000
)

// Offsets in struct seccomp_data on a little-endian machine.
const (
	dataNumber = 0
	dataArch   = 4
	dataArgs   = 16
)

// tmpfileBit is the bit of O_TMPFILE that is not O_DIRECTORY.
const tmpfileBit = unix.O_TMPFILE &^ unix.O_DIRECTORY

// The socket option and the commands of prctl(2) that the filter passes on.
const soPeercred = unix.SO_PEERCRED

var prctlCommands = []uint32{unix.PR_GET_KEEPCAPS, unix.PR_SET_KEEPCAPS, unix.PR_SET_TIMERSLACK, unix.PR_GET_TIMERSLACK}

// program is a filter under construction.
type program struct{ code []unix.SockFilter }

func (p *program) op(code uint16, k uint32, jt, jf uint8) {
	p.code = append(p.code, unix.SockFilter{Code: code, K: k, Jt: jt, Jf: jf})
}

func (p *program) load(offset uint32) { p.op(unix.BPF_LD|unix.BPF_W|unix.BPF_ABS, offset, 0, 0) }
func (p *program) ret(value uint32)   { p.op(unix.BPF_RET|unix.BPF_K, value, 0, 0) }

// when adds a rule that returns value for a system call.
func (p *program) when(number int, value uint32) {
	p.op(unix.BPF_JMP|unix.BPF_JEQ|unix.BPF_K, uint32(number), 0, 1)
	p.ret(value)
}

// whenBits adds a rule that passes on a call if an argument has one of the bits.
func (p *program) whenBits(number, arg int, bits uint32) {
	p.op(unix.BPF_JMP|unix.BPF_JEQ|unix.BPF_K, uint32(number), 0, 4)
	p.load(argument(arg))
	p.op(unix.BPF_JMP|unix.BPF_JSET|unix.BPF_K, bits, 0, 1)
	p.ret(retNotify)
	p.ret(retAllow)
}

// whenOneOf adds a rule that passes on a call if an argument is one of values.
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

// Filter returns the seccomp filter that passes system calls of a step to a Supervisor.
// It kills programs of another architecture than the machine's, because their changes
// would not be recorded. For the same reason it refuses the x32 ABI and the xattr calls
// of Linux 6.13 with ENOSYS. It refuses io_uring with EPERM, because its requests are not
// system calls. kept reports whether the Table has files with recorded owners when the
// step starts. If it is false, the calls that only preserve such records are not passed
// on.
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
