// Package scopetest provides a systemd for tests. It implements the one D-Bus method that
// package scope calls.
package scopetest

import (
	"bufio"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"

	"github.com/godbus/dbus/v5"
)

// Manager is the systemd of one user.
type Manager struct {
	// UID is the user's id outside of user namespaces.
	UID int
	// Refuses makes it reject every client, as another user's systemd does.
	Refuses bool
	// Bus makes it require Hello first, as a bus does.
	Bus bool
	// Fault is the D-Bus name of the error to return. If it is Silent, there is no
	// answer.
	Fault string
	// Start must be set. It moves a process into a new scope.
	Start func(name string, pid int) error
}

// Silent is a value of Manager.Fault.
const Silent = "silent"

// Serve accepts connections until l is closed. If report is not nil, it is called with
// the error of each connection that failed.
func (m *Manager) Serve(l net.Listener, report func(error)) {
	for {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			err := errors.Join(m.serve(conn), conn.Close())
			if err != nil && report != nil {
				report(err)
			}
		}()
	}
}

// serve implements the server's side of the D-Bus specification.
func (m *Manager) serve(conn net.Conn) error {
	in := bufio.NewReader(conn)
	if b, err := in.ReadByte(); err != nil || b != 0 {
		return fmt.Errorf("no null byte: %w", err)
	}
	if err := m.authenticate(conn, in); err != nil {
		return err
	}
	greeted := !m.Bus
	for {
		msg, err := dbus.DecodeMessage(in)
		if err != nil {
			return nil //nolint:nilerr // the end
		}
		reply := m.answer(msg, &greeted)
		if reply == nil {
			continue
		}
		if err := reply.EncodeTo(conn, binary.LittleEndian); err != nil {
			return fmt.Errorf("answer: %w", err)
		}
	}
}

func (m *Manager) authenticate(conn net.Conn, in *bufio.Reader) error {
	for {
		line, err := in.ReadString('\n')
		if err != nil {
			return fmt.Errorf("authenticate: %w", err)
		}
		reply := "ERROR"
		switch f := strings.Fields(line); {
		case len(f) == 0:
		case f[0] == "BEGIN":
			return nil
		case f[0] != "AUTH" && f[0] != "DATA":
		case m.Refuses || len(f) == 1 && f[0] == "AUTH":
			reply = "REJECTED EXTERNAL"
		case len(f) == 2 && f[0] == "AUTH":
			reply = "DATA"
		case f[len(f)-1] == hex.EncodeToString([]byte(strconv.Itoa(m.UID))), len(f) == 1:
			// The client sent the user's id outside, or left it to the kernel.
			reply = "OK 1234deadbeef"
		}
		if _, err := fmt.Fprintf(conn, "%s\r\n", reply); err != nil {
			return fmt.Errorf("authenticate: %w", err)
		}
	}
}

func (m *Manager) answer(msg *dbus.Message, greeted *bool) *dbus.Message {
	reply := &dbus.Message{Type: dbus.TypeMethodReply, Headers: map[dbus.HeaderField]dbus.Variant{}}
	reply.Headers[dbus.FieldReplySerial] = dbus.MakeVariant(msg.Serial())
	body := func(v any) *dbus.Message {
		reply.Body = []any{v}
		reply.Headers[dbus.FieldSignature] = dbus.MakeVariant(dbus.SignatureOf(v))
		return reply
	}
	fault, reason := m.Fault, "the reason"
	switch member, _ := msg.Headers[dbus.FieldMember].Value().(string); {
	case fault == Silent:
		return nil
	case member == "Hello":
		*greeted = true
		return body(":1.1")
	case !*greeted || member != "StartTransientUnit":
		fault = "org.freedesktop.DBus.Error.AccessDenied"
	case fault == "":
		if err := m.start(msg.Body); err != nil {
			fault, reason = "org.freedesktop.DBus.Error.InvalidArgs", err.Error()
		}
	}
	if fault != "" {
		reply.Type = dbus.TypeError
		reply.Headers[dbus.FieldErrorName] = dbus.MakeVariant(fault)
		return body(reason)
	}
	return body(dbus.ObjectPath("/org/freedesktop/systemd1/job/1"))
}

// start checks the arguments of StartTransientUnit, as systemd does.
func (m *Manager) start(args []any) error {
	if len(args) != 4 {
		return errors.New("wrong number of arguments")
	}
	name, _ := args[0].(string)
	list, _ := args[2].([][]any)
	if !strings.HasSuffix(name, ".scope") || args[1] != "fail" {
		return errors.New("wrong name or mode")
	}
	got := map[string]any{}
	for _, p := range list {
		key, _ := p[0].(string)
		value, _ := p[1].(dbus.Variant)
		got[key] = value.Value()
	}
	pids, _ := got["PIDs"].([]uint32)
	if len(pids) != 1 || got["Delegate"] != true || got["CollectMode"] != "inactive-or-failed" {
		return fmt.Errorf("wrong properties: %v", got)
	}
	return m.Start(name, int(pids[0]))
}
