mkdir -p context
python3 - <<'END'
import io, tarfile
def member(name, kind=tarfile.REGTYPE, data=b'', link='', mode=0o644, uid=0, gid=0, mtime=1620000000, **more):
    m = tarfile.TarInfo(name)
    m.type, m.linkname, m.mode, m.uid, m.gid, m.mtime, m.size = kind, link, mode, uid, gid, mtime, len(data)
    for k, v in more.items():
        setattr(m, k, v)
    return m, io.BytesIO(data)
def write(name, members, format=tarfile.GNU_FORMAT, headers=None):
    with tarfile.open('context/' + name, 'w', format=format, pax_headers=headers) as t:
        for m, data in members:
            t.addfile(m, data if m.size else None)
REG, LNK, SYM, CHR, BLK, DIR, FIFO = (getattr(tarfile, n + 'TYPE') for n in 'REG LNK SYM CHR BLK DIR FIFO'.split())
write('kinds.tar', [member('suid', data=b's', mode=0o4755, uid=1), member('sgid', DIR, mode=0o2775, gid=2), member('sticky', DIR, mode=0o1777), member('fifo', FIFO, mode=0o600), member('one', data=b'1', mode=0o600), member('two', LNK, link='one'), member('nothing', data=b'', mode=0), member('link', SYM, link='one', mode=0o777, uid=5)])
write('pax.tar', [member('p', data=b'p', mtime=1620000000.123456789, uid=3000, pax_headers={'comment': 'x'}), member('ä' * 60 + '/ö', data=b'u')], tarfile.PAX_FORMAT)
write('global.tar', [member('g', data=b'g')], tarfile.PAX_FORMAT, {'comment': 'a commit'})
write('times.tar', [member('d/f', data=b'f', mtime=1), member('d', DIR, mode=0o755, mtime=2), member('old', data=b'o', mtime=0), member('late', data=b'l', mtime=4000000000)])
write('long.tar', [member('n' * 120 + '/' + 'm' * 200, data=b'long'), member('l', SYM, link='t' * 150)])
END
