mkdir http
echo f >http/f
echo p >http/private
echo "Bearer x" >http/private.authorization
