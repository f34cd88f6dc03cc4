# Print an optspec for argparse to handle cmd's options that are independent of any subcommand.
function __fish_kpx_global_optspecs
    string join \n o/output= color= no-headers no-progress no-input q/quiet v/verbose from= netns= cgroup= bpffs= state-dir= node-name= services-from= kubeconfig= context= h/help V/version
end

function __fish_kpx_needs_command
    # Figure out if the current invocation already has a command.
    set -l cmd (commandline -opc)
    set -e cmd[1]
    argparse -s (__fish_kpx_global_optspecs) -- $cmd 2>/dev/null
    or return
    if set -q argv[1]
        # Also print the command, so this can be used to figure out what it is.
        echo $argv[1]
        return 1
    end
    return 0
end

function __fish_kpx_using_subcommand
    set -l cmd (__fish_kpx_needs_command)
    test -z "$cmd"
    and return 1
    contains -- $cmd[1] $argv
end

complete -c kpx -n "__fish_kpx_needs_command" -s o -l output -d 'Output format' -r -f -a "table\t'Aligned columns for people, about 80 wide'
wide\t'All columns'
json\t'One JSON document (or one object a line, for commands that stream)'
yaml\t'The same as YAML'
name\t'Names only, one a line'"
complete -c kpx -n "__fish_kpx_needs_command" -l color -d 'When to use colour' -r -f -a "auto\t'On a terminal; NO_COLOR, CLICOLOR=0, FORCE_COLOR and CLICOLOR_FORCE are heeded'
always\t'Always'
never\t'Never'"
complete -c kpx -n "__fish_kpx_needs_command" -l from -d 'Read a snapshot (directory or .tar.zst) instead of the live node' -r -F
complete -c kpx -n "__fish_kpx_needs_command" -l netns -d 'Network namespace of the node: a name from `ip netns`, or a path' -r
complete -c kpx -n "__fish_kpx_needs_command" -l cgroup -d 'cgroup2 directory whose sockets the node serves [default: the cgroup2 root]' -r -F
complete -c kpx -n "__fish_kpx_needs_command" -l bpffs -d 'Directory on a bpf file system for pins' -r -F
complete -c kpx -n "__fish_kpx_needs_command" -l state-dir -d 'Directory for journals, plans and backups' -r -F
complete -c kpx -n "__fish_kpx_needs_command" -l node-name -d 'Name of the Node object [default: from the snapshot, then the host name]' -r
complete -c kpx -n "__fish_kpx_needs_command" -l services-from -d 'API objects from a file or folder instead of a cluster' -r -F
complete -c kpx -n "__fish_kpx_needs_command" -l kubeconfig -d 'kubeconfig file' -r -F
complete -c kpx -n "__fish_kpx_needs_command" -l context -d 'Context of the kubeconfig' -r
complete -c kpx -n "__fish_kpx_needs_command" -l no-headers -d 'Leave out the headings of tables'
complete -c kpx -n "__fish_kpx_needs_command" -l no-progress -d 'Show no progress'
complete -c kpx -n "__fish_kpx_needs_command" -l no-input -d 'Never ask; fail instead, naming the flag that answers'
complete -c kpx -n "__fish_kpx_needs_command" -s q -l quiet -d 'Say less: errors and data only'
complete -c kpx -n "__fish_kpx_needs_command" -s v -l verbose -d 'Say more on stderr: -v info, -vv debug, -vvv trace'
complete -c kpx -n "__fish_kpx_needs_command" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c kpx -n "__fish_kpx_needs_command" -s V -l version -d 'Print version'
complete -c kpx -n "__fish_kpx_needs_command" -f -a "inspect" -d 'Show what serves on this node: Services, backends, BPF maps, programs and links'
complete -c kpx -n "__fish_kpx_needs_command" -f -a "diff" -d 'Compare two descriptions of a node\'s Services'
complete -c kpx -n "__fish_kpx_needs_command" -f -a "snapshot" -d 'Record a node, for reports, tests and reading elsewhere'
complete -c kpx -n "__fish_kpx_needs_command" -f -a "migrate" -d 'Carry this node from kube-proxy to eBPF, and back'
complete -c kpx -n "__fish_kpx_needs_command" -f -a "lab" -d 'Rehearse on a recorded node, inside network namespaces'
complete -c kpx -n "__fish_kpx_needs_command" -f -a "version" -d 'Print the version, the eBPF object\'s hash and the kernel floor'
complete -c kpx -n "__fish_kpx_needs_command" -f -a "completions" -d 'Print a completion script for a shell'
complete -c kpx -n "__fish_kpx_needs_command" -f -a "man" -d 'Write the man pages'
complete -c kpx -n "__fish_kpx_needs_command" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c kpx -n "__fish_kpx_using_subcommand inspect" -s o -l output -d 'Output format' -r -f -a "table\t'Aligned columns for people, about 80 wide'
wide\t'All columns'
json\t'One JSON document (or one object a line, for commands that stream)'
yaml\t'The same as YAML'
name\t'Names only, one a line'"
complete -c kpx -n "__fish_kpx_using_subcommand inspect" -l color -d 'When to use colour' -r -f -a "auto\t'On a terminal; NO_COLOR, CLICOLOR=0, FORCE_COLOR and CLICOLOR_FORCE are heeded'
always\t'Always'
never\t'Never'"
complete -c kpx -n "__fish_kpx_using_subcommand inspect" -l from -d 'Read a snapshot (directory or .tar.zst) instead of the live node' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand inspect" -l netns -d 'Network namespace of the node: a name from `ip netns`, or a path' -r
complete -c kpx -n "__fish_kpx_using_subcommand inspect" -l cgroup -d 'cgroup2 directory whose sockets the node serves [default: the cgroup2 root]' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand inspect" -l bpffs -d 'Directory on a bpf file system for pins' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand inspect" -l state-dir -d 'Directory for journals, plans and backups' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand inspect" -l node-name -d 'Name of the Node object [default: from the snapshot, then the host name]' -r
complete -c kpx -n "__fish_kpx_using_subcommand inspect" -l services-from -d 'API objects from a file or folder instead of a cluster' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand inspect" -l kubeconfig -d 'kubeconfig file' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand inspect" -l context -d 'Context of the kubeconfig' -r
complete -c kpx -n "__fish_kpx_using_subcommand inspect" -l no-headers -d 'Leave out the headings of tables'
complete -c kpx -n "__fish_kpx_using_subcommand inspect" -l no-progress -d 'Show no progress'
complete -c kpx -n "__fish_kpx_using_subcommand inspect" -l no-input -d 'Never ask; fail instead, naming the flag that answers'
complete -c kpx -n "__fish_kpx_using_subcommand inspect" -s q -l quiet -d 'Say less: errors and data only'
complete -c kpx -n "__fish_kpx_using_subcommand inspect" -s v -l verbose -d 'Say more on stderr: -v info, -vv debug, -vvv trace'
complete -c kpx -n "__fish_kpx_using_subcommand inspect" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c kpx -n "__fish_kpx_using_subcommand diff" -s o -l output -d 'Output format' -r -f -a "table\t'Aligned columns for people, about 80 wide'
wide\t'All columns'
json\t'One JSON document (or one object a line, for commands that stream)'
yaml\t'The same as YAML'
name\t'Names only, one a line'"
complete -c kpx -n "__fish_kpx_using_subcommand diff" -l color -d 'When to use colour' -r -f -a "auto\t'On a terminal; NO_COLOR, CLICOLOR=0, FORCE_COLOR and CLICOLOR_FORCE are heeded'
always\t'Always'
never\t'Never'"
complete -c kpx -n "__fish_kpx_using_subcommand diff" -l from -d 'Read a snapshot (directory or .tar.zst) instead of the live node' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand diff" -l netns -d 'Network namespace of the node: a name from `ip netns`, or a path' -r
complete -c kpx -n "__fish_kpx_using_subcommand diff" -l cgroup -d 'cgroup2 directory whose sockets the node serves [default: the cgroup2 root]' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand diff" -l bpffs -d 'Directory on a bpf file system for pins' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand diff" -l state-dir -d 'Directory for journals, plans and backups' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand diff" -l node-name -d 'Name of the Node object [default: from the snapshot, then the host name]' -r
complete -c kpx -n "__fish_kpx_using_subcommand diff" -l services-from -d 'API objects from a file or folder instead of a cluster' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand diff" -l kubeconfig -d 'kubeconfig file' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand diff" -l context -d 'Context of the kubeconfig' -r
complete -c kpx -n "__fish_kpx_using_subcommand diff" -l no-headers -d 'Leave out the headings of tables'
complete -c kpx -n "__fish_kpx_using_subcommand diff" -l no-progress -d 'Show no progress'
complete -c kpx -n "__fish_kpx_using_subcommand diff" -l no-input -d 'Never ask; fail instead, naming the flag that answers'
complete -c kpx -n "__fish_kpx_using_subcommand diff" -s q -l quiet -d 'Say less: errors and data only'
complete -c kpx -n "__fish_kpx_using_subcommand diff" -s v -l verbose -d 'Say more on stderr: -v info, -vv debug, -vvv trace'
complete -c kpx -n "__fish_kpx_using_subcommand diff" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c kpx -n "__fish_kpx_using_subcommand snapshot" -s o -l output -d 'Output format' -r -f -a "table\t'Aligned columns for people, about 80 wide'
wide\t'All columns'
json\t'One JSON document (or one object a line, for commands that stream)'
yaml\t'The same as YAML'
name\t'Names only, one a line'"
complete -c kpx -n "__fish_kpx_using_subcommand snapshot" -l color -d 'When to use colour' -r -f -a "auto\t'On a terminal; NO_COLOR, CLICOLOR=0, FORCE_COLOR and CLICOLOR_FORCE are heeded'
always\t'Always'
never\t'Never'"
complete -c kpx -n "__fish_kpx_using_subcommand snapshot" -l from -d 'Read a snapshot (directory or .tar.zst) instead of the live node' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand snapshot" -l netns -d 'Network namespace of the node: a name from `ip netns`, or a path' -r
complete -c kpx -n "__fish_kpx_using_subcommand snapshot" -l cgroup -d 'cgroup2 directory whose sockets the node serves [default: the cgroup2 root]' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand snapshot" -l bpffs -d 'Directory on a bpf file system for pins' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand snapshot" -l state-dir -d 'Directory for journals, plans and backups' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand snapshot" -l node-name -d 'Name of the Node object [default: from the snapshot, then the host name]' -r
complete -c kpx -n "__fish_kpx_using_subcommand snapshot" -l services-from -d 'API objects from a file or folder instead of a cluster' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand snapshot" -l kubeconfig -d 'kubeconfig file' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand snapshot" -l context -d 'Context of the kubeconfig' -r
complete -c kpx -n "__fish_kpx_using_subcommand snapshot" -l no-headers -d 'Leave out the headings of tables'
complete -c kpx -n "__fish_kpx_using_subcommand snapshot" -l no-progress -d 'Show no progress'
complete -c kpx -n "__fish_kpx_using_subcommand snapshot" -l no-input -d 'Never ask; fail instead, naming the flag that answers'
complete -c kpx -n "__fish_kpx_using_subcommand snapshot" -s q -l quiet -d 'Say less: errors and data only'
complete -c kpx -n "__fish_kpx_using_subcommand snapshot" -s v -l verbose -d 'Say more on stderr: -v info, -vv debug, -vvv trace'
complete -c kpx -n "__fish_kpx_using_subcommand snapshot" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c kpx -n "__fish_kpx_using_subcommand migrate" -s o -l output -d 'Output format' -r -f -a "table\t'Aligned columns for people, about 80 wide'
wide\t'All columns'
json\t'One JSON document (or one object a line, for commands that stream)'
yaml\t'The same as YAML'
name\t'Names only, one a line'"
complete -c kpx -n "__fish_kpx_using_subcommand migrate" -l color -d 'When to use colour' -r -f -a "auto\t'On a terminal; NO_COLOR, CLICOLOR=0, FORCE_COLOR and CLICOLOR_FORCE are heeded'
always\t'Always'
never\t'Never'"
complete -c kpx -n "__fish_kpx_using_subcommand migrate" -l from -d 'Read a snapshot (directory or .tar.zst) instead of the live node' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand migrate" -l netns -d 'Network namespace of the node: a name from `ip netns`, or a path' -r
complete -c kpx -n "__fish_kpx_using_subcommand migrate" -l cgroup -d 'cgroup2 directory whose sockets the node serves [default: the cgroup2 root]' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand migrate" -l bpffs -d 'Directory on a bpf file system for pins' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand migrate" -l state-dir -d 'Directory for journals, plans and backups' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand migrate" -l node-name -d 'Name of the Node object [default: from the snapshot, then the host name]' -r
complete -c kpx -n "__fish_kpx_using_subcommand migrate" -l services-from -d 'API objects from a file or folder instead of a cluster' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand migrate" -l kubeconfig -d 'kubeconfig file' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand migrate" -l context -d 'Context of the kubeconfig' -r
complete -c kpx -n "__fish_kpx_using_subcommand migrate" -l no-headers -d 'Leave out the headings of tables'
complete -c kpx -n "__fish_kpx_using_subcommand migrate" -l no-progress -d 'Show no progress'
complete -c kpx -n "__fish_kpx_using_subcommand migrate" -l no-input -d 'Never ask; fail instead, naming the flag that answers'
complete -c kpx -n "__fish_kpx_using_subcommand migrate" -s q -l quiet -d 'Say less: errors and data only'
complete -c kpx -n "__fish_kpx_using_subcommand migrate" -s v -l verbose -d 'Say more on stderr: -v info, -vv debug, -vvv trace'
complete -c kpx -n "__fish_kpx_using_subcommand migrate" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c kpx -n "__fish_kpx_using_subcommand lab" -s o -l output -d 'Output format' -r -f -a "table\t'Aligned columns for people, about 80 wide'
wide\t'All columns'
json\t'One JSON document (or one object a line, for commands that stream)'
yaml\t'The same as YAML'
name\t'Names only, one a line'"
complete -c kpx -n "__fish_kpx_using_subcommand lab" -l color -d 'When to use colour' -r -f -a "auto\t'On a terminal; NO_COLOR, CLICOLOR=0, FORCE_COLOR and CLICOLOR_FORCE are heeded'
always\t'Always'
never\t'Never'"
complete -c kpx -n "__fish_kpx_using_subcommand lab" -l from -d 'Read a snapshot (directory or .tar.zst) instead of the live node' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand lab" -l netns -d 'Network namespace of the node: a name from `ip netns`, or a path' -r
complete -c kpx -n "__fish_kpx_using_subcommand lab" -l cgroup -d 'cgroup2 directory whose sockets the node serves [default: the cgroup2 root]' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand lab" -l bpffs -d 'Directory on a bpf file system for pins' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand lab" -l state-dir -d 'Directory for journals, plans and backups' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand lab" -l node-name -d 'Name of the Node object [default: from the snapshot, then the host name]' -r
complete -c kpx -n "__fish_kpx_using_subcommand lab" -l services-from -d 'API objects from a file or folder instead of a cluster' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand lab" -l kubeconfig -d 'kubeconfig file' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand lab" -l context -d 'Context of the kubeconfig' -r
complete -c kpx -n "__fish_kpx_using_subcommand lab" -l no-headers -d 'Leave out the headings of tables'
complete -c kpx -n "__fish_kpx_using_subcommand lab" -l no-progress -d 'Show no progress'
complete -c kpx -n "__fish_kpx_using_subcommand lab" -l no-input -d 'Never ask; fail instead, naming the flag that answers'
complete -c kpx -n "__fish_kpx_using_subcommand lab" -s q -l quiet -d 'Say less: errors and data only'
complete -c kpx -n "__fish_kpx_using_subcommand lab" -s v -l verbose -d 'Say more on stderr: -v info, -vv debug, -vvv trace'
complete -c kpx -n "__fish_kpx_using_subcommand lab" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c kpx -n "__fish_kpx_using_subcommand version" -s o -l output -d 'Output format' -r -f -a "table\t'Aligned columns for people, about 80 wide'
wide\t'All columns'
json\t'One JSON document (or one object a line, for commands that stream)'
yaml\t'The same as YAML'
name\t'Names only, one a line'"
complete -c kpx -n "__fish_kpx_using_subcommand version" -l color -d 'When to use colour' -r -f -a "auto\t'On a terminal; NO_COLOR, CLICOLOR=0, FORCE_COLOR and CLICOLOR_FORCE are heeded'
always\t'Always'
never\t'Never'"
complete -c kpx -n "__fish_kpx_using_subcommand version" -l from -d 'Read a snapshot (directory or .tar.zst) instead of the live node' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand version" -l netns -d 'Network namespace of the node: a name from `ip netns`, or a path' -r
complete -c kpx -n "__fish_kpx_using_subcommand version" -l cgroup -d 'cgroup2 directory whose sockets the node serves [default: the cgroup2 root]' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand version" -l bpffs -d 'Directory on a bpf file system for pins' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand version" -l state-dir -d 'Directory for journals, plans and backups' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand version" -l node-name -d 'Name of the Node object [default: from the snapshot, then the host name]' -r
complete -c kpx -n "__fish_kpx_using_subcommand version" -l services-from -d 'API objects from a file or folder instead of a cluster' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand version" -l kubeconfig -d 'kubeconfig file' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand version" -l context -d 'Context of the kubeconfig' -r
complete -c kpx -n "__fish_kpx_using_subcommand version" -l no-headers -d 'Leave out the headings of tables'
complete -c kpx -n "__fish_kpx_using_subcommand version" -l no-progress -d 'Show no progress'
complete -c kpx -n "__fish_kpx_using_subcommand version" -l no-input -d 'Never ask; fail instead, naming the flag that answers'
complete -c kpx -n "__fish_kpx_using_subcommand version" -s q -l quiet -d 'Say less: errors and data only'
complete -c kpx -n "__fish_kpx_using_subcommand version" -s v -l verbose -d 'Say more on stderr: -v info, -vv debug, -vvv trace'
complete -c kpx -n "__fish_kpx_using_subcommand version" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c kpx -n "__fish_kpx_using_subcommand completions" -s o -l output -d 'Output format' -r -f -a "table\t'Aligned columns for people, about 80 wide'
wide\t'All columns'
json\t'One JSON document (or one object a line, for commands that stream)'
yaml\t'The same as YAML'
name\t'Names only, one a line'"
complete -c kpx -n "__fish_kpx_using_subcommand completions" -l color -d 'When to use colour' -r -f -a "auto\t'On a terminal; NO_COLOR, CLICOLOR=0, FORCE_COLOR and CLICOLOR_FORCE are heeded'
always\t'Always'
never\t'Never'"
complete -c kpx -n "__fish_kpx_using_subcommand completions" -l from -d 'Read a snapshot (directory or .tar.zst) instead of the live node' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand completions" -l netns -d 'Network namespace of the node: a name from `ip netns`, or a path' -r
complete -c kpx -n "__fish_kpx_using_subcommand completions" -l cgroup -d 'cgroup2 directory whose sockets the node serves [default: the cgroup2 root]' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand completions" -l bpffs -d 'Directory on a bpf file system for pins' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand completions" -l state-dir -d 'Directory for journals, plans and backups' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand completions" -l node-name -d 'Name of the Node object [default: from the snapshot, then the host name]' -r
complete -c kpx -n "__fish_kpx_using_subcommand completions" -l services-from -d 'API objects from a file or folder instead of a cluster' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand completions" -l kubeconfig -d 'kubeconfig file' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand completions" -l context -d 'Context of the kubeconfig' -r
complete -c kpx -n "__fish_kpx_using_subcommand completions" -l no-headers -d 'Leave out the headings of tables'
complete -c kpx -n "__fish_kpx_using_subcommand completions" -l no-progress -d 'Show no progress'
complete -c kpx -n "__fish_kpx_using_subcommand completions" -l no-input -d 'Never ask; fail instead, naming the flag that answers'
complete -c kpx -n "__fish_kpx_using_subcommand completions" -s q -l quiet -d 'Say less: errors and data only'
complete -c kpx -n "__fish_kpx_using_subcommand completions" -s v -l verbose -d 'Say more on stderr: -v info, -vv debug, -vvv trace'
complete -c kpx -n "__fish_kpx_using_subcommand completions" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c kpx -n "__fish_kpx_using_subcommand man" -s o -l output -d 'Output format' -r -f -a "table\t'Aligned columns for people, about 80 wide'
wide\t'All columns'
json\t'One JSON document (or one object a line, for commands that stream)'
yaml\t'The same as YAML'
name\t'Names only, one a line'"
complete -c kpx -n "__fish_kpx_using_subcommand man" -l color -d 'When to use colour' -r -f -a "auto\t'On a terminal; NO_COLOR, CLICOLOR=0, FORCE_COLOR and CLICOLOR_FORCE are heeded'
always\t'Always'
never\t'Never'"
complete -c kpx -n "__fish_kpx_using_subcommand man" -l from -d 'Read a snapshot (directory or .tar.zst) instead of the live node' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand man" -l netns -d 'Network namespace of the node: a name from `ip netns`, or a path' -r
complete -c kpx -n "__fish_kpx_using_subcommand man" -l cgroup -d 'cgroup2 directory whose sockets the node serves [default: the cgroup2 root]' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand man" -l bpffs -d 'Directory on a bpf file system for pins' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand man" -l state-dir -d 'Directory for journals, plans and backups' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand man" -l node-name -d 'Name of the Node object [default: from the snapshot, then the host name]' -r
complete -c kpx -n "__fish_kpx_using_subcommand man" -l services-from -d 'API objects from a file or folder instead of a cluster' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand man" -l kubeconfig -d 'kubeconfig file' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand man" -l context -d 'Context of the kubeconfig' -r
complete -c kpx -n "__fish_kpx_using_subcommand man" -l no-headers -d 'Leave out the headings of tables'
complete -c kpx -n "__fish_kpx_using_subcommand man" -l no-progress -d 'Show no progress'
complete -c kpx -n "__fish_kpx_using_subcommand man" -l no-input -d 'Never ask; fail instead, naming the flag that answers'
complete -c kpx -n "__fish_kpx_using_subcommand man" -s q -l quiet -d 'Say less: errors and data only'
complete -c kpx -n "__fish_kpx_using_subcommand man" -s v -l verbose -d 'Say more on stderr: -v info, -vv debug, -vvv trace'
complete -c kpx -n "__fish_kpx_using_subcommand man" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c kpx -n "__fish_kpx_using_subcommand help; and not __fish_seen_subcommand_from inspect diff snapshot migrate lab version completions man help" -f -a "inspect" -d 'Show what serves on this node: Services, backends, BPF maps, programs and links'
complete -c kpx -n "__fish_kpx_using_subcommand help; and not __fish_seen_subcommand_from inspect diff snapshot migrate lab version completions man help" -f -a "diff" -d 'Compare two descriptions of a node\'s Services'
complete -c kpx -n "__fish_kpx_using_subcommand help; and not __fish_seen_subcommand_from inspect diff snapshot migrate lab version completions man help" -f -a "snapshot" -d 'Record a node, for reports, tests and reading elsewhere'
complete -c kpx -n "__fish_kpx_using_subcommand help; and not __fish_seen_subcommand_from inspect diff snapshot migrate lab version completions man help" -f -a "migrate" -d 'Carry this node from kube-proxy to eBPF, and back'
complete -c kpx -n "__fish_kpx_using_subcommand help; and not __fish_seen_subcommand_from inspect diff snapshot migrate lab version completions man help" -f -a "lab" -d 'Rehearse on a recorded node, inside network namespaces'
complete -c kpx -n "__fish_kpx_using_subcommand help; and not __fish_seen_subcommand_from inspect diff snapshot migrate lab version completions man help" -f -a "version" -d 'Print the version, the eBPF object\'s hash and the kernel floor'
complete -c kpx -n "__fish_kpx_using_subcommand help; and not __fish_seen_subcommand_from inspect diff snapshot migrate lab version completions man help" -f -a "completions" -d 'Print a completion script for a shell'
complete -c kpx -n "__fish_kpx_using_subcommand help; and not __fish_seen_subcommand_from inspect diff snapshot migrate lab version completions man help" -f -a "man" -d 'Write the man pages'
complete -c kpx -n "__fish_kpx_using_subcommand help; and not __fish_seen_subcommand_from inspect diff snapshot migrate lab version completions man help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
