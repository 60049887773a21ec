# What ssh itself does, seen by who calls it. Each line of `seen` must be the same over both fronts.
# Sourced by scripts/test-tools.

# NAME COMMAND…: the exit status and the digest of what was printed.
look() {
    local name=$1 code=0
    shift
    "$@" >out 2>err || code=$?
    printf '%s: %d %s\n' "$name" "$code" "$(sha256sum <out)" >>seen
}

# LINES: a file `config` that says this of the host, and for OpenSSH what it needs to find its sshd.
config() {
    printf 'Host %s\n%s\nHost *\n' "$host" "$1" >config
    [[ $FRONT == rexec ]] || cat "$dir/ssh_config" >>config
}

# What a file says that -F names, and what was typed instead.
look_at_config() {
    local request
    for request in force yes no auto; do
        config "RequestTTY $request"
        look "RequestTTY $request in a file" "$SSH" -F config "$host" 'test -t 0 && echo terminal'
        look "RequestTTY $request in a file, and another" "$SSH" -F config -o RequestTTY=force "$host" tty -s
        look "RequestTTY $request in a file, and -T" "$SSH" -F config -T "$host" tty -s
    done
    config $'RemoteCommand echo "a  # b"; exit 4 # c\nRemoteCommand exit 5'
    look 'RemoteCommand in a file' "$SSH" -F config "$host"
    look 'RemoteCommand in a file, and words' "$SSH" -F config "$host" true
    look 'RemoteCommand in a file, and none' "$SSH" -F config -o RemoteCommand=none "$host" exit 6
    config 'RemoteCommand echo %h %n %%'
    look 'RemoteCommand with percents' "$SSH" -F config "$host"
    config 'RemoteCommand date +%s'
    look 'RemoteCommand with others' "$SSH" -F config "$host"
    config 'SessionType none'
    look 'SessionType none in a file' timeout 2 "$SSH" -F config "$host" touch ran
    fails test -e ran
    look 'SessionType none in a file, and default' "$SSH" -F config -o SessionType=default "$host" echo ran
    config 'SessionType subsystem'
    look 'SessionType subsystem in a file' "$SSH" -F config "$host" sftp
    config 'StdinNull yes'
    look 'StdinNull in a file' "$SSH" -F config "$host" cat <<<typed
    look 'StdinNull in a file, and no' "$SSH" -F config -o StdinNull=no "$host" cat <<<typed
    config 'RequestTTY perhaps'
    look 'a value that is none' "$SSH" -F config "$host" true
    config 'ConnectTimeout 1'
    look 'of two files the last one' "$SSH" -F nowhere -F config "$host" echo found
}

try_behaviour() {
    head -c 1000000 /dev/urandom >"$dir/random" 2>/dev/null
    [[ -f $dir/behaviour.bytes ]] || cp "$dir/random" "$dir/behaviour.bytes"
    local long
    long=$(head -c 100000 /dev/zero | tr '\0' x)

    look 'exit 0' "$SSH" "$host" true
    look 'exit 7' "$SSH" "$host" 'exit 7'
    look 'exit 255' "$SSH" "$host" 'exit 255'
    look 'not found' "$SSH" "$host" no-such-command
    look 'ended by a signal' "$SSH" "$host" 'kill -TERM $$'
    look 'words are joined' "$SSH" "$host" echo 'a   b' '$((1+1))' "'c   d'" '*/nothing'
    look 'a -- after the host' "$SSH" "$host" -- echo -n x
    look 'options after the host' "$SSH" "$host" -T -q echo x
    look 'binary, both ways' "$SSH" "$host" cat <"$dir/behaviour.bytes"
    look 'stdin at its end' "$SSH" "$host" cat </dev/null
    echo kept >input
    { look '-n leaves stdin alone' "$SSH" -n "$host" cat; cat >rest; } <input
    printf 'left: %s\n' "$(cat rest)" >>seen
    look '100 KB of command' "$SSH" "$host" "echo $long"
    look 'stderr apart' "$SSH" "$host" 'echo out; echo err >&2'
    printf 'stderr: %s\n' "$(cat err)" >>seen
    look 'at home' "$SSH" "$host" 'cd "$HOME" && echo "$PWD" && [ "$OLDPWD" = "$HOME" ]'
    look 'login shell' "$SSH" "$host" 'echo "$0 $SHELL $USER"'
    look 'addresses' "$SSH" "$host" 'set -- $SSH_CONNECTION; echo "$1 $3 $#"; set -- $SSH_CLIENT; echo "$1 $#"'
    SENT=yes look 'SendEnv' "$SSH" -o SendEnv=SENT "$host" 'echo "$SENT"'
    look 'SetEnv' "$SSH" -o 'SetEnv=SENT="a b"' "$host" 'echo "$SENT"'
    look 'a child that holds the output' "$SSH" "$host" '(sleep 0.5; echo late) & exit 3'
    look 'a child that let go' timeout 20 "$SSH" "$host" 'sleep 1000 </dev/null >/dev/null 2>&1 & echo started'
    look 'no command' "$SSH" "$host" <<<'echo "in a shell $((40 + 2))"; exit 5'
    look 'no such subsystem' "$SSH" -s "$host" no-such-subsystem
    look 'unknown option' "$SSH" -o NoSuchKey=1 "$host" true
    grep -q 'Bad configuration option' err
    look 'ControlPersist alone' "$SSH" -o ControlPersist
    fails grep -q 'Bad configuration option\|Usage:' err
    look 'no master' "$SSH" -o ControlPath="$PWD/none" -O check "$host"
    look 'nobody there' "$SSH" -p 1 "$host" true
    printf 'quiet: %s\n' "$("$SSH" "$host" true 2>&1)" >>seen

    look_at_config

    # Not digests of everything: addresses and names differ.
    "$SSH" -G "$host" | grep -x "hostname $host" >/dev/null
    "$SSH" -V 2>&1 | grep OpenSSH >/dev/null
    [[ $("$SSH" "$host" 'yes' | head -1) == y ]]
    # Nothing is left of it.
    sleep 0.2
    "$SSH" "$host" 'pkill -x -f "sleep 1000"' || true
}
