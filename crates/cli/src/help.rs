//! The longer texts of `--help` and of the man pages.

pub(crate) const USAGE: &str = "rexec [OPTIONS] [USER@]HOST[:PORT] [COMMAND [ARG]…]
       rexec SUBCOMMAND …";

pub(crate) const RUN_USAGE: &str = "rexec [run] [OPTIONS] [USER@]HOST[:PORT] [COMMAND [ARG]…]";

pub(crate) const COPY_USAGE: &str = "rexec cp [OPTIONS] SOURCE… DESTINATION";

pub(crate) const PUT_USAGE: &str = "rexec put [OPTIONS] FILE… [USER@]HOST:PATH";

pub(crate) const GET_USAGE: &str = "rexec get [OPTIONS] [USER@]HOST:FILE… PATH";

pub(crate) const COPY: &str = "\
Examples:
  rexec cp notes.txt web1:
      To the home there. A colon before any slash makes a path remote.
  rexec cp -r site web1:/srv/www
      A folder: /srv/www/site if /srv/www is there, otherwise /srv/www itself.
  rexec cp -ruT --delete site/ web1:/srv/www
      Makes /srv/www what site is, and moves only what differs.
  rexec get --glob 'web1:/var/log/*.log' logs/
      Patterns are expanded there.
  rexec cp web1:big.img web2:
      From one machine to another, through this one.
  pg_dump db | rexec put - web1:db.sql
      From stdin, or with - as the destination to stdout.
  rexec cp --checksum-only -r site web1:/srv/www
      Says which files differ.

What is guaranteed:
  A file is checked by size and SHA-256 where it arrives, before it gets its name. At every moment
  the name stands for the old file or the new one. A connection that is lost is made again, and the
  transfer goes on where it was.

Exit status:
  0        every file is in its place, and proven
  1        some are not, and each is named; or with --checksum-only, not all are the same
  125      usage, refused by policy, or a failure on this side
  130      cancelled by Ctrl-C
  254      what the other side sent is not what it should be
  255      no connection";

pub(crate) const SHORT: &str = "\
Examples:
  rexec web1 'df -h | tail -1'      one word: a line for the login shell
  rexec web1 ls 'my file'           several words: arrive exactly as typed
  rexec --script setup.sh web1 a b  run a local script there
  rexec web1                        a login shell on a terminal

See --help for the exit status, the files and the environment.";

pub(crate) const LONG: &str = "\
Examples:
  rexec web1 'df -h | tail -1'
      One word is a line for the remote login shell, as with ssh.
  rexec web1 ls 'my file'
      Several words reach the program exactly as typed; nothing is quoted or expanded.
  tar c . | rexec -l build web1 tar x -C /srv
      Streams are binary-clean, as long as they like, and checked to the last byte.
  rexec --script setup.sh web1 --fast
      Runs a local script there, with an argument.
  rexec web1
      A login shell, on a terminal if stdin is one.
  rexec -t web1 htop
      A command on a terminal.
  rexec -d --id build-42 web1 make
      Starts it, unless it was started before under this id, and leaves; rexec wait web1 build-42.
  rexec --json --timeout 5m web1 make | jq
      Everything that happens, as JSON Lines.

Options go before the host; everything after it is the command. A '--' right after the host is
dropped. A host named like a subcommand: rexec run ping uptime.

Exit status:
  N        the command ended with status N, and all its output is here and verified
  128+N    signal N ended the command
  124      --timeout ended it
  125      usage, refused by policy, or a failure on this side
  126      not started: not executable, or something else stood in the way
  127      not started: no such program
  130      cancelled by Ctrl-C, and ended with all it had started
  254      the command ended, but its output is incomplete or was altered
  255      no connection: nothing was started, or (it is said) the end is not known
A command may itself end with any of these: scripts that must tell use --json or --status-fd N, where
\"outcome\" is exited, signaled, timed_out, cancelled, never_started, denied, unreachable, lost,
incomplete or local.

JSON:
  --json prints one object a line: \"type\" is start, stdout, stderr or exit. The command's stdout and
  stderr are then found only there, as \"text\" where they are UTF-8 and as \"data_b64\" where not.
  --status-fd N writes the exit object alone to descriptor N, whatever happens.

Jobs:
  A command is a job that does not need its connection. -d starts it and leaves; rexec jobs, logs, attach,
  wait, kill and rm are for jobs that are there. A connection that is lost is made again (--reconnect-for),
  and the command goes on at the exact byte; --on-disconnect says what the agent does meanwhile. The same
  command under the same --id runs once, so --retry is safe.

Terminals:
  -t, -tt and -T are as in ssh. The escape keys, at the start of a line: ~. leaves at once, ~d leaves and
  lets the command go on (rexec attach comes back), ~^Z suspends rexec, ~? lists them, ~~ is one ~. Ctrl-C
  and all other keys are for the command. An end of stdin is not told to a terminal.

Ctrl-C:
  The first one ends the command and everything it started, and waits until that is done. The second
  one leaves at once and says what may still run. SIGTERM, SIGHUP and SIGQUIT do the same.
  Other signals that end a process end the command too, after a second. With --on-disconnect keep Ctrl-C
  alone ends it, and any other signal leaves it to itself.

Files:
  ~/.config/rexec/identity.pem    certificate and private key (make one with rexec ca issue-user)
  ~/.config/rexec/authority.crt   the authorities that sign agents
  ~/.config/rexec/authority.crl   what they have revoked; if it exists, it must be current
  ~/.config/rexec/config.toml     identity, key, authority, crl, user, port, connect_timeout,
                                  reconnect_for, keepalive, hash
  /etc/rexec/client.toml          the same, for all users
  $XDG_CONFIG_HOME stands in for ~/.config. Nothing is read from the current folder.

Environment:
  REXEC_IDENTITY, REXEC_KEY, REXEC_AUTHORITY, REXEC_CRL, REXEC_USER, REXEC_PORT,
  REXEC_CONNECT_TIMEOUT, REXEC_RECONNECT_FOR, REXEC_KEEPALIVE, REXEC_HASH and REXEC_CONFIG. Options go
  before the environment, that before the user's file, and that before the system's.";

pub(crate) const LOGS: &str = "\
Examples:
  rexec logs web1 5c1a9e0f2b7d              all that is kept, stdout and stderr in their order
  rexec logs -f --since 10m web1 build-7    the last ten minutes, and what comes
  rexec logs --stdout --since 4096 web1 build-7 >>rest
  rexec logs --verify web1 build-7 >/dev/null && echo 'every byte is there'
  rexec logs --asciicast web1 build-7 | asciinema play -

Exit status:
  0        what was asked for was printed, however the job ended
  125      no such job, refused, usage
  254      altered, or a byte of a job that has ended is gone
  255      no connection";

pub(crate) const ATTACH: &str = "\
Exit status:
  As if the command were run now: its own, with all output from the start or with what is still kept.
  If some is gone, that is said. With --read-only, 130 after Ctrl-C.";

pub(crate) const CHAT: &str = "\
Examples:
  rexec chat web1                       join the lobby of web1
  rexec chat web1 incident-42           another room; it opens with its first member
  rexec chat web1 job:deploy.7          the room of a job, for those who may watch it
  echo deploying | rexec chat web1      post a line and leave
  rexec chat web1 --read-only           show what is said, until Ctrl-C

At the prompt:
  /me TEXT, /who, /rooms, /quit, /help; two slashes begin a line that is to begin with one

A connection that is lost is made again: no line is missed or comes twice. Who does not keep up is
told how many lines were missed.";

pub(crate) const COMPLETIONS: &str = "\
Examples:
  bash: rexec completions bash > ~/.local/share/bash-completion/completions/rexec
  zsh:  rexec completions zsh > \"${fpath[1]}/_rexec\"
  fish: rexec completions fish > ~/.config/fish/completions/rexec.fish";
