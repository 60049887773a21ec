//! The text of the man page `rexec-ssh(1)`, in the form of [`crate::manual`]: a paragraph is a section if its
//! first line ends with a colon.

/// The page, but for its title line.
pub(crate) const PAGE: &str = "\
Name:
rexec-ssh - the command line of ssh, over rexec

Synopsis:
rexec-ssh [-46AaCGgKkMNnqsTtVvXxYy] [-D PORT] [-E LOG_FILE] [-e ESCAPE] [-F CONFIG]
          [-i IDENTITY] [-L FORWARD] [-l USER] [-o KEY=VALUE] [-p PORT] [-R FORWARD]
          [-W HOST:PORT] HOST [COMMAND [ARGUMENT…]]

Description:
Stands in for ssh where a program calls it: rsync -e rexec-ssh, GIT_SSH_COMMAND=rexec-ssh,
sftp -S rexec-ssh, ansible_ssh_executable=rexec-ssh. It takes OpenSSH's options, joins the
words of the command with blanks, has the login shell run them, and waits until its output
is closed. Without a command it is a login shell. rexec acts the same when it is called ssh.
HOST is [USER@]NAME or ssh://[USER@]NAME[:PORT]. Options may follow it, up to the first word
of the command; -- ends them.

Options:
-D [BIND:]PORT               serve SOCKS 4 and 5 here, connecting from there
-E FILE      append its own messages to FILE
-e KEY       on a terminal, what begins an escape: a character, ^X, or none
-F FILE      heed what this ssh_config says of HOST, after what is typed
-G           print what would be done, and end
-g           ports are for all addresses, not for this machine alone
-i FILE      certificate and key to show, if the file holds a certificate; ssh keys are ignored
-L [BIND:]PORT:HOST:HOSTPORT connections to PORT here go to HOST from there
-l USER      run as this user
-N           no command, only ports
-n           give the command no stdin
-o KEY=VALUE as in ssh_config(5); what has no meaning here is taken in silence
-p PORT      port of the agent
-q, -v       say less, say more
-R [BIND:]PORT:HOST:HOSTPORT connections to PORT there go to HOST from here; PORT 0 is told
-R [BIND:]PORT               serve SOCKS 4 and 5 there, connecting from here
-s           COMMAND is the name of a subsystem, such as sftp
-T, -t, -tt  no terminal; one if stdin is one; one in any case
-W HOST:PORT stdin and stdout are a connection from there
-V           print the version to stderr
Other options of ssh are taken in silence where that changes nothing, and refused where it
would deceive: docs/integrations.md lists them.

Exit status:
that of the command; 255 if a signal ended it, and for any failure of rexec-ssh itself

Environment:
REXEC_IDENTITY, REXEC_AUTHORITY, REXEC_PORT and the others of rexec(1)

Files:
those of rexec(1); ~/.ssh/config only if ssh_config is set in the configuration

See also:
rexec(1), ssh(1), ssh_config(5)
";
