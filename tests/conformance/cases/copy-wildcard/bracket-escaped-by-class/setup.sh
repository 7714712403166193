mkdir -p context
cd context
printf a > 'arr[0].txt'; printf b > arr0.txt; mkdir 'dir[1]'; printf c > 'dir[1]/c'
