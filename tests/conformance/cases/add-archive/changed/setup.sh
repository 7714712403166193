mkdir -p t context
echo @NONCE@ >t/f
tar --owner=0 --group=0 --mtime='2021-05-06' -C t -cf context/a.tar f
