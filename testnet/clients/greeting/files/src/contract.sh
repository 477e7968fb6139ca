# What a BuildStream element may expect of its sandbox; the first thing that is not so ends the build.
fail() { echo "contract: $*" >&2; exit 1; }

[ "$(id -u)" = 0 ] || fail "uid is $(id -u)"
[ "$(id -g)" = 0 ] || fail "gid is $(id -g)"
[ "$(pwd)" = /buildstream/greeting/hello.bst ] || fail "working directory is $(pwd)"
[ "$(hostname)" = buildmesh ] || fail "host name is $(hostname)"
[ "$(awk '/^CapEff/ { print $2 }' /proc/self/status)" = 0000000000000000 ] || fail "there are capabilities"
[ -z "$(awk 'NR > 2 && $1 != "lo:"' /proc/net/dev)" ] || fail "there is a network: $(cat /proc/net/dev)"
[ "$(ps | wc -l)" -lt 12 ] || fail "processes of others are seen: $(ps)"

touch /tmp/mine || fail "/tmp cannot be written to"
[ "$(ls -A /tmp)" = mine ] || fail "/tmp was not empty"
echo x >/dev/null || fail "/dev/null"
for device in full null random tty urandom zero; do [ -c /dev/$device ] || fail "/dev/$device is no device"; done
for name in fd ptmx pts shm stderr stdin stdout; do [ -e /dev/$name ] || [ -L /dev/$name ] || fail "no /dev/$name"; done
[ "$(ls /dev | wc -l)" = 13 ] || fail "/dev has other things: $(ls /dev)"

# BuildStream asks that the root of its dependencies is read-only.
touch /bin/should-fail 2>/dev/null && fail "the root can be written to"
for file in /bin/busybox hello.in; do
  [ "$(stat -c %Y $file)" = 1321009871 ] || fail "$file was changed at $(stat -c %Y $file)"
done
[ "$(readlink /usr/bin/sh)" = /bin/sh ] || fail "an absolute link became $(readlink /usr/bin/sh)"
/usr/bin/sh -c true || fail "an absolute link leads nowhere"

# What is the element's own can be written to, also in place.
echo more >>hello.in || fail "a source cannot be written to"
[ "$(stat -c %a hello.in)" = 644 ] || fail "hello.in has mode $(stat -c %a hello.in)"
[ "$(stat -c %a /bin/busybox)" = 755 ] || fail "busybox has mode $(stat -c %a /bin/busybox)"
