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
write('xattr.tar', [member('x', data=b'x', mode=0o755, pax_headers={'SCHILY.xattr.user.a': 'b', 'SCHILY.xattr.user.c': ''}), member('d', DIR, mode=0o755, pax_headers={'SCHILY.xattr.user.d': 'e'})], tarfile.PAX_FORMAT)
END
