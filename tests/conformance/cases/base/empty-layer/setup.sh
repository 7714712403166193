. "$LIB/oci.sh"

mkdir r; echo 1 >r/a; pack l r && layer l
mkdir e; tar -C e -cf l -T /dev/null; layer l
layout base '"history":[{"created_by":"one"},{"created_by":"two"}]'
