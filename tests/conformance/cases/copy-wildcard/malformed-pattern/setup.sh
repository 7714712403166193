mkdir -p context
cd context
printf a > '[x'
