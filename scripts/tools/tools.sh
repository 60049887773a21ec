# What each tool has to do. Every function runs in an empty folder, with `ssh` on PATH and in $SSH being the
# front that is tried; the host is $host. Sourced by scripts/test-tools.

try_rsync() {
    make_tree src
    rsync -a -e "$SSH" src/ "$host:$PWD/up/"
    same src up
    # There and back, a file that changed, a file that is gone.
    rm "src/nothing"
    printf 'more\n' >>src/plain
    printf 'stray' >up/stray
    rsync -a --delete --checksum -e "$SSH" src/ "$host:$PWD/up/"
    same src up
    rsync -a --delete -e "$SSH" "$host:$PWD/up/" down/
    same src down
    # A part that was left behind is gone on with.
    head -c 1000000 "src/a dir/random" >"down/a dir/random"
    rsync -a --partial --inplace --no-whole-file -e "$SSH" "$host:$PWD/up/" down/
    same src down
    interrupted_rsync
    # An error of the far side is its status.
    local code=0
    rsync -a -e "$SSH" "$host:$PWD/nowhere" down/ || code=$?
    [[ $code -eq 23 ]]
}

# SIGNAL [group]: sends it to an rsync that has brought a part of a file; to its ssh as well, as Ctrl-C does it.
interrupt_rsync() {
    set -m
    rsync -a --partial --bwlimit=8000 -e "$SSH" big "$host:$PWD/bigup" </dev/null &
    set +m
    local pid=$! part
    until part=$(stat -c %s .bigup.* 2>/dev/null) && [[ $part -gt 1000000 ]]; do kill -0 $pid; sleep 0.02; done
    kill -s "$1" -- ${2:+-}$pid
    fails wait $pid
}

# One that is interrupted keeps its part at once, and is gone: it does not come back later and put that in the
# place of the file that the next one has brought.
interrupted_rsync() {
    local how
    head -c 20000000 /dev/urandom >big
    for how in TERM INT KILL 'TERM group' 'INT group'; do
        echo "interrupted by $how"
        rm -f bigup
        # shellcheck disable=SC2086
        interrupt_rsync $how
        rsync -a --partial -e "$SSH" big "$host:$PWD/bigup"
        cmp big bigup
        # Whoever is left of the first one has a second to leave, and not the ten of a lease.
        for _ in {1..10}; do pgrep -f "rsync --server.*$PWD/bigup" >/dev/null || break; sleep 0.1; done
        fails pgrep -af "rsync --server.*$PWD/bigup"
        cmp big bigup
        # The same, and nobody goes on with it: the part is there.
        rm bigup
        # shellcheck disable=SC2086
        interrupt_rsync $how
        for _ in {1..10}; do [[ ! -s bigup ]] || break; sleep 0.1; done
        [[ $(stat -c %s bigup) -gt 1000000 && $(stat -c %s bigup) -lt 20000000 ]]
        cmp -n "$(stat -c %s bigup)" big bigup
        [[ -z $(find . -maxdepth 1 -name '.bigup.*') ]]
    done
}

try_git() {
    export HOME=$PWD GIT_SSH_COMMAND=$SSH GIT_CONFIG_NOSYSTEM=1
    git config --global user.email a@example.org
    git config --global user.name a
    git config --global init.defaultBranch main
    git config --global protocol.version 2
    git init -q --bare hub.git
    git init -q --bare part.git
    git init -q one
    (
        cd one
        head -c 20000000 /dev/urandom >large
        echo 1 >file
        git add . && git commit -qm one
        git remote add origin "ssh://$host$OLDPWD/hub.git"
        git push -q origin main
    )
    git clone -q "$host:$PWD/hub.git" two
    same one/large two/large
    (cd one && echo 2 >file && git commit -qam two && git push -q)  2>/dev/null ||
        (cd one && git push -q origin main)
    (cd two && git fetch -q && git merge -q --ff-only origin/main && grep -qx 2 file)
    # Protocol 2 needs a variable to arrive.
    (cd two && GIT_TRACE_PACKET=1 git ls-remote origin 2>&1 | grep 'version 2' >/dev/null)
    # A submodule, over the same front.
    (git clone -q "$host:$PWD/part.git" part && cd part && echo p >p && git add p && git commit -qm p && git push -q origin HEAD:main)
    (cd two && git submodule --quiet add "$host:$OLDPWD/part.git" part && git commit -qm sub && git push -q origin HEAD:main)
    git clone -q --recurse-submodules "$host:$PWD/hub.git" three
    grep -qx p three/part/p
    # What is not there is an error, and says so.
    fails git clone -q "$host:$PWD/nowhere.git" four
    git archive --remote="$host:$PWD/hub.git" main file | tar -xO | grep -x 2 >/dev/null
}

try_sftp() {
    make_tree src
    printf 'mkdir %s/up\nput -rp src/. %s/up\nls -l %s/up\nrename %s/up/plain %s/up/renamed\nget -r %s/up down\n' \
        "$PWD" "$PWD" "$PWD" "$PWD" "$PWD" "$PWD" >batch
    rm src/link
    sftp -q -S "$SSH" -b batch "$host"
    mv down/renamed down/plain
    same src down
    # A command that fails ends the batch.
    echo "get $PWD/nowhere" >bad
    fails sftp -q -S "$SSH" -b bad "$host"
    # A server named by its path needs no subsystem.
    echo "ls $PWD/up" | sftp -q -S "$SSH" -s /usr/lib/openssh/sftp-server "$host" | grep renamed >/dev/null
}

try_scp() {
    make_tree src
    rm src/link
    scp -q -r -p -S "$SSH" src "$host:$PWD/up"
    same src up
    scp -q -r -S "$SSH" "$host:$PWD/up" down
    same src down
    # The older protocol, which runs scp on the far side.
    scp -q -O -r -p -S "$SSH" src "$host:$PWD/up2"
    same src up2
    scp -q -O -r -S "$SSH" "$host:$PWD/up2" down2
    same src down2
    fails scp -q -S "$SSH" "$host:$PWD/nowhere" .
}

try_sshfs() {
    [[ -c /dev/fuse ]] || { echo "there is no /dev/fuse"; return 77; }
    make_tree src
    mkdir mount
    sshfs -o ssh_command="$SSH" "$host:$PWD/src" mount || { echo "FUSE may not be used here"; return 77; }
    trap 'fusermount -u mount 2>/dev/null || umount mount' EXIT
    same src mount
    head -c 2000000 /dev/urandom >mount/written
    mkdir mount/made && mv mount/plain mount/made/
    fusermount -u mount || umount mount
    trap - EXIT
    [[ $(stat -c %s src/written) -eq 2000000 && -f src/made/plain ]]
}

try_borg() {
    export BORG_RSH=$SSH BORG_BASE_DIR=$PWD/borg BORG_PASSPHRASE=x BORG_RELOCATED_REPO_ACCESS_IS_OK=yes
    make_tree src
    borg init -e repokey "ssh://$host$PWD/repo"
    borg create "ssh://$host$PWD/repo::first" src
    borg list "ssh://$host$PWD/repo" | grep first >/dev/null
    mkdir out && (cd out && borg extract "ssh://$host$OLDPWD/repo::first")
    same src out/src
    borg check "ssh://$host$PWD/repo"
}

try_hg() {
    export HGRCPATH=$PWD/hgrc
    printf '[ui]\nssh = %s\nusername = a\n' "$SSH" >hgrc
    hg init one
    (cd one && head -c 3000000 /dev/urandom >large && echo 1 >file && hg add -q && hg commit -qm one)
    hg clone -q "ssh://$host/$PWD/one" two
    same one/large two/large
    (cd two && echo 2 >file && hg commit -qm two && hg push -q)
    (cd one && hg update -q && grep -qx 2 file)
}

try_ansible() {
    export ANSIBLE_HOST_KEY_CHECKING=False ANSIBLE_RETRY_FILES_ENABLED=False ANSIBLE_NOCOLOR=1 HOME=$PWD
    export ANSIBLE_SSH_EXECUTABLE=$SSH ANSIBLE_SSH_ARGS='-C -o ControlMaster=no' ANSIBLE_LOCALHOST_WARNING=False
    # One that other users can run, too.
    local python=/usr/bin/python3
    [[ -x $python ]] || python=$(command -v python3)
    printf 'node ansible_host=%s ansible_connection=ssh ansible_python_interpreter=%s\n' "$host" "$python" >hosts
    head -c 200000 /dev/urandom >payload
    cat >play.yml <<EOF
- hosts: all
  gather_facts: true
  tasks:
    - ping:
    - copy: {src: $PWD/payload, dest: $PWD/copied}
    - fetch: {src: $PWD/copied, dest: $PWD/fetched, flat: true}
    - command: echo hi
      register: said
    - assert: {that: said.stdout == 'hi'}
    - shell: exit 3
      register: failed
      failed_when: failed.rc != 3
    - script: $PWD/script.sh word
      register: ran
    - assert: {that: "'script says word' in ran.stdout"}
    - command: sleep 1
      async: 20
      poll: 1
    - command: id -un
      become: true
      become_method: su
      become_user: root
      register: became
      when: ansible_user_id == 'root'
EOF
    printf '#!/bin/sh\necho "script says $1"\n' >script.sh
    # Its sftp and scp call ssh themselves.
    export ANSIBLE_SFTP_EXTRA_ARGS="-S $SSH" ANSIBLE_SCP_EXTRA_ARGS="-S $SSH"
    local pipelining method
    for pipelining in False True; do
        for method in sftp scp piped; do
            echo "pipelining $pipelining, files by $method"
            rm -f copied fetched
            ANSIBLE_PIPELINING=$pipelining ANSIBLE_SSH_TRANSFER_METHOD=$method ansible-playbook -i hosts play.yml
            cmp payload fetched
        done
    done
    ansible -i hosts all -m setup -a 'filter=ansible_user_id' | grep ansible_user_id >/dev/null
    [[ $me != root ]] || become_nobody
    # A host that is not there is unreachable, not failed.
    fails ansible -i hosts all -m ping -e ansible_port=1 >unreachable
    grep -q UNREACHABLE unreachable
}

# From root to somebody who may do less, and whose login shell is none. No file is copied: with su, Ansible waits for its
# prompt in the sftp that brings one.
become_nobody() {
    # The way there must be open to nobody; mktemp has closed it.
    mkdir -m 1777 open
    chmod a+x "$dir"
    cat >nobody.yml <<EOF
- hosts: all
  gather_facts: false
  become: true
  become_method: su
  become_user: nobody
  become_flags: -s /bin/sh
  tasks:
    - shell: id -un; id -gn; id -u; echo \$HOME; umask; exit 3
      register: other
      failed_when: other.rc != 3
    - file: {path: $PWD/open/of-nobody, state: touch, mode: '0600'}
    - stat: {path: $PWD/open/of-nobody}
      register: made
    - assert: {that: made.stat.pw_name == 'nobody'}
    - command: cat /etc/shadow
      register: closed
      failed_when: closed.rc == 0
    - shell: echo "{{ other.stdout_lines | join(' ') }}" >>$PWD/seen
      become: false
EOF
    local pipelining
    for pipelining in False True; do
        echo "becoming nobody, pipelining $pipelining"
        rm -f open/of-nobody
        ANSIBLE_PIPELINING=$pipelining ansible-playbook -i hosts nobody.yml
    done
    grep '^nobody ' seen >/dev/null
    # Nobody to become is a failure, and not another user.
    fails ansible -i hosts all -b --become-method su --become-user no-such-user -m command -a 'id -un' >became
    fails grep -x root became
}

try_pdsh() {
    # By the exec worker, which takes any command line.
    pdsh -R exec -w "$host" "$SSH" %h echo hi | grep -x "$host: hi" >/dev/null
    # By its ssh worker, where there is one; it calls ssh from PATH.
    if pdsh -L 2>/dev/null | grep 'rcmd/ssh' >/dev/null; then
        pdsh -R ssh -w "$host" echo hi | grep -x "$host: hi" >/dev/null
        local out
        out=$(pdsh -S -R ssh -w "$host" exit 3 2>&1) || [[ $? -eq 3 ]]
        grep -q 'exited with exit code 3' <<<"$out"
    fi
}

try_clush() {
    export HOME=$PWD CLUSTERSHELL_CFGDIR=$PWD
    printf '[Main]\nssh_path: %s\nscp_path: scp -S %s\nssh_user:\n' "$SSH" "$SSH" >clush.conf
    [[ $(clush --nostdin -w "$host" echo hi) == "$host: hi" ]]
    local code=0
    clush --nostdin -S -w "$host" 'exit 3' || code=$?
    [[ $code -eq 3 ]]
    echo copied >file
    clush -w "$host" --copy file --dest "$PWD/there"
    cmp file there
}

try_parallel() {
    export HOME=$PWD RSYNC_RSH=$SSH
    mkdir -p .parallel && : >.parallel/will-cite
    [[ $(parallel --ssh "$SSH" -S "$host" -k echo ::: a 'b c' "d'e" | paste -sd, -) == "a,b c,d'e" ]]
    echo data >file
    parallel --ssh "$SSH" -S "$host" --workdir "$PWD/far" --transferfile {} --return {}.out --cleanup 'cat {} {} >{}.out' ::: file
    [[ $(wc -l <file.out) -eq 2 ]]
    local code=0
    parallel --ssh "$SSH" -S "$host" 'exit {}' ::: 3 || code=$?
    [[ $code -eq 1 || $code -eq 3 ]]
}

# OpenSSH's own client and server, with the front between them.
try_forward() {
    head -c 20000000 /dev/urandom >bytes
    inner() { "$real_ssh" -F "$dir/ssh_config" "$@"; }
    # As a ProxyCommand.
    inner -o ProxyCommand="$SSH -W $host:%p $host" inner cat <bytes >back
    cmp bytes back
    # A port here, for several at once.
    local local_port=$((port + 1)) code=0 remote_port served
    "$SSH" -N -o ExitOnForwardFailure=yes -L "$local_port:$host:$port" "$host" &
    served=$!
    trap "kill $served" EXIT
    until inner -p "$local_port" "$host" true 2>/dev/null; do kill -0 $served; sleep 0.1; done
    for i in 1 2 3; do inner -p "$local_port" "$host" cat <bytes >"back$i" & jobs[i]=$!; done
    for i in 1 2 3; do wait "${jobs[i]}"; cmp bytes "back$i"; done
    # A port there, which that side chooses and tells.
    "$SSH" -N -o LogLevel=INFO -o ExitOnForwardFailure=yes -R "127.0.0.1:0:$host:$port" "$host" 2>told &
    trap "kill $served $!" EXIT
    until grep -q '^Allocated port ' told; do kill -0 $!; sleep 0.1; done
    remote_port=$(sed -n "s/^Allocated port \([0-9]*\) for remote forward to $host:$port\r*$/\1/p" told)
    inner -p "$remote_port" "$host" cat <bytes >back
    cmp bytes back
    # Nobody there is 255.
    "$SSH" -W "$host:1" "$host" </dev/null || code=$?
    [[ $code -eq 255 ]]
}

show_versions() {
    "$real_ssh" -V
    for tool in rsync git sshfs borg hg ansible pdsh clush parallel; do
        command -v "$tool" >/dev/null || continue
        printf '%-9s %s\n' "$tool" "$({ "$tool" --version 2>&1 || "$tool" -V 2>&1; } | grep -o '[0-9][0-9.]*[0-9]' | head -1)"
    done
}
