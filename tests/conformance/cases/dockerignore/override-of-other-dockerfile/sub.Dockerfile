FROM scratch
COPY . /y
