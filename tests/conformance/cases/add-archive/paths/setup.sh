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
write('f.tar', [member('sub/f', data=b'f')])
write('implied.tar', [member('a/b/c', data=b'c', uid=3), member('a', DIR, mode=0o700, uid=4)])
write('inner.tar', [member('rel/one', data=b'1'), member('abs/two', data=b'2'), member('up/three', data=b'3'), member('root-link/real/four', data=b'4')])
write('ownlinks.tar', [member('real', DIR, mode=0o755), member('l', SYM, link='real'), member('l/f', data=b'f'), member('a', SYM, link='/real'), member('a/g', data=b'g'), member('h', LNK, link='real/f'), member('dangling', SYM, link='nowhere/x')])
write('replaces.tar', [member('old', data=b'new'), member('l', data=b'file now'), member('in', SYM, link='elsewhere')])
write('dots.tar', [member('./x/../y', data=b'y'), member('../../up', data=b'u'), member('/abs/z', data=b'z'), member('.', DIR, mode=0o700, uid=9)])
END
