mkdir http
echo @NONCE@ >/dev/null
echo p >http/private
echo h >http/headed
echo "Bearer s3cret" >http/private.authorization
cp http/private.authorization http/headed.authorization
printf s3cret >token
printf "Bearer s3cret" >header
touch -d '2020-02-03 04:05:06 UTC' http/private
touch -d '2020-02-03 04:05:06 UTC' http/headed
