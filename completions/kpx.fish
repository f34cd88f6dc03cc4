# Print an optspec for argparse to handle cmd's options that are independent of any subcommand.
function __fish_kpx_global_optspecs
    string join \n o/output= color= no-headers no-progress no-input q/quiet v/verbose config= from= netns= cgroup= bpffs= cilium-pins= state-dir= node-name= kube-proxy-flag= services-from= kubeconfig= context= h/help V/version
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
name\t'Names only, one a line'
markdown\t'Tables as Markdown, for issues and job summaries'
github\t'What there is to act on as annotations of GitHub Actions'"
complete -c kpx -n "__fish_kpx_needs_command" -l color -d 'When to use colour' -r -f -a "auto\t'On a terminal; NO_COLOR, CLICOLOR=0, FORCE_COLOR and CLICOLOR_FORCE are heeded'
always\t'Always'
never\t'Never'"
complete -c kpx -n "__fish_kpx_needs_command" -l config -d 'Read defaults of options from this file instead of /etc/kpx/config.toml and ~/.config/kpx/config.toml (KPX_CONFIG)' -r -F
complete -c kpx -n "__fish_kpx_needs_command" -l from -d 'Read a snapshot (directory or .tar.zst) instead of the live node' -r -F
complete -c kpx -n "__fish_kpx_needs_command" -l netns -d 'Network namespace of the node: a name from `ip netns`, or a path' -r
complete -c kpx -n "__fish_kpx_needs_command" -l cgroup -d 'cgroup2 directory whose sockets the node serves [default: the cgroup2 root]' -r -F
complete -c kpx -n "__fish_kpx_needs_command" -l bpffs -d 'Directory on a bpf file system for pins' -r -F
complete -c kpx -n "__fish_kpx_needs_command" -l cilium-pins -d 'Directory of the maps that Cilium pins' -r -F
complete -c kpx -n "__fish_kpx_needs_command" -l state-dir -d 'Directory for journals, plans and backups' -r -F
complete -c kpx -n "__fish_kpx_needs_command" -l node-name -d 'Name of the Node object [default: from the snapshot, then the host name]' -r
complete -c kpx -n "__fish_kpx_needs_command" -l kube-proxy-flag -d 'Flag kube-proxy was started with, where the node does not tell, such as cluster-cidr=10.244.0.0/16' -r
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
complete -c kpx -n "__fish_kpx_needs_command" -f -a "inspect" -d 'Show what serves on this node: Services, backends, flows, BPF objects'
complete -c kpx -n "__fish_kpx_needs_command" -f -a "diff" -d 'Compare two descriptions of a node\'s Services'
complete -c kpx -n "__fish_kpx_needs_command" -f -a "path" -d 'Follow a packet: which rules and maps it meets in each dataplane, and where it ends'
complete -c kpx -n "__fish_kpx_needs_command" -f -a "doctor" -d 'Find out why a Service does not work, from the API to a connection'
complete -c kpx -n "__fish_kpx_needs_command" -f -a "doctor-probe" -d 'Connect from elsewhere, on behalf of doctor'
complete -c kpx -n "__fish_kpx_needs_command" -f -a "top" -d 'Watch how busy each Service and backend is'
complete -c kpx -n "__fish_kpx_needs_command" -f -a "monitor" -d 'See which backend each connection gets, or why none, as it happens'
complete -c kpx -n "__fish_kpx_needs_command" -f -a "audit" -d 'Judge what the old dataplanes left on a node: what is wrong, and what to do'
complete -c kpx -n "__fish_kpx_needs_command" -f -a "preflight" -d 'Try what this kernel and node can do, or foretell it from a kernel\'s files'
complete -c kpx -n "__fish_kpx_needs_command" -f -a "preflight-trial" -d 'Try the running kernel, on behalf of preflight'
complete -c kpx -n "__fish_kpx_needs_command" -f -a "explain" -d 'Explain a check of audit or preflight'
complete -c kpx -n "__fish_kpx_needs_command" -f -a "snapshot" -d 'Record a node, for reports, tests and reading elsewhere'
complete -c kpx -n "__fish_kpx_needs_command" -f -a "report" -d 'Write what is to be known of a node as one page for a browser'
complete -c kpx -n "__fish_kpx_needs_command" -f -a "agent" -d 'Keep serving this node\'s Services, as kube-proxy did'
complete -c kpx -n "__fish_kpx_needs_command" -f -a "migrate" -d 'Carry this node from kube-proxy to eBPF, and back'
complete -c kpx -n "__fish_kpx_needs_command" -f -a "lab" -d 'Rehearse on a recorded node, inside network namespaces'
complete -c kpx -n "__fish_kpx_needs_command" -f -a "version" -d 'Print the version, the eBPF object\'s hash and the kernel floor'
complete -c kpx -n "__fish_kpx_needs_command" -f -a "completions" -d 'Print a completion script for a shell'
complete -c kpx -n "__fish_kpx_needs_command" -f -a "man" -d 'Write the man pages'
complete -c kpx -n "__fish_kpx_needs_command" -f -a "checks" -d 'Print docs/checks.md'
complete -c kpx -n "__fish_kpx_needs_command" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and not __fish_seen_subcommand_from services service backends affinity conntrack ipvs nat maglev map maps programs links cgroups devices help" -s o -l output -d 'Output format' -r -f -a "table\t'Aligned columns for people, about 80 wide'
wide\t'All columns'
json\t'One JSON document (or one object a line, for commands that stream)'
yaml\t'The same as YAML'
name\t'Names only, one a line'
markdown\t'Tables as Markdown, for issues and job summaries'
github\t'What there is to act on as annotations of GitHub Actions'"
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and not __fish_seen_subcommand_from services service backends affinity conntrack ipvs nat maglev map maps programs links cgroups devices help" -l color -d 'When to use colour' -r -f -a "auto\t'On a terminal; NO_COLOR, CLICOLOR=0, FORCE_COLOR and CLICOLOR_FORCE are heeded'
always\t'Always'
never\t'Never'"
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and not __fish_seen_subcommand_from services service backends affinity conntrack ipvs nat maglev map maps programs links cgroups devices help" -l config -d 'Read defaults of options from this file instead of /etc/kpx/config.toml and ~/.config/kpx/config.toml (KPX_CONFIG)' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and not __fish_seen_subcommand_from services service backends affinity conntrack ipvs nat maglev map maps programs links cgroups devices help" -l from -d 'Read a snapshot (directory or .tar.zst) instead of the live node' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and not __fish_seen_subcommand_from services service backends affinity conntrack ipvs nat maglev map maps programs links cgroups devices help" -l netns -d 'Network namespace of the node: a name from `ip netns`, or a path' -r
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and not __fish_seen_subcommand_from services service backends affinity conntrack ipvs nat maglev map maps programs links cgroups devices help" -l cgroup -d 'cgroup2 directory whose sockets the node serves [default: the cgroup2 root]' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and not __fish_seen_subcommand_from services service backends affinity conntrack ipvs nat maglev map maps programs links cgroups devices help" -l bpffs -d 'Directory on a bpf file system for pins' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and not __fish_seen_subcommand_from services service backends affinity conntrack ipvs nat maglev map maps programs links cgroups devices help" -l cilium-pins -d 'Directory of the maps that Cilium pins' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and not __fish_seen_subcommand_from services service backends affinity conntrack ipvs nat maglev map maps programs links cgroups devices help" -l state-dir -d 'Directory for journals, plans and backups' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and not __fish_seen_subcommand_from services service backends affinity conntrack ipvs nat maglev map maps programs links cgroups devices help" -l node-name -d 'Name of the Node object [default: from the snapshot, then the host name]' -r
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and not __fish_seen_subcommand_from services service backends affinity conntrack ipvs nat maglev map maps programs links cgroups devices help" -l kube-proxy-flag -d 'Flag kube-proxy was started with, where the node does not tell, such as cluster-cidr=10.244.0.0/16' -r
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and not __fish_seen_subcommand_from services service backends affinity conntrack ipvs nat maglev map maps programs links cgroups devices help" -l services-from -d 'API objects from a file or folder instead of a cluster' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and not __fish_seen_subcommand_from services service backends affinity conntrack ipvs nat maglev map maps programs links cgroups devices help" -l kubeconfig -d 'kubeconfig file' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and not __fish_seen_subcommand_from services service backends affinity conntrack ipvs nat maglev map maps programs links cgroups devices help" -l context -d 'Context of the kubeconfig' -r
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and not __fish_seen_subcommand_from services service backends affinity conntrack ipvs nat maglev map maps programs links cgroups devices help" -l no-headers -d 'Leave out the headings of tables'
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and not __fish_seen_subcommand_from services service backends affinity conntrack ipvs nat maglev map maps programs links cgroups devices help" -l no-progress -d 'Show no progress'
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and not __fish_seen_subcommand_from services service backends affinity conntrack ipvs nat maglev map maps programs links cgroups devices help" -l no-input -d 'Never ask; fail instead, naming the flag that answers'
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and not __fish_seen_subcommand_from services service backends affinity conntrack ipvs nat maglev map maps programs links cgroups devices help" -s q -l quiet -d 'Say less: errors and data only'
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and not __fish_seen_subcommand_from services service backends affinity conntrack ipvs nat maglev map maps programs links cgroups devices help" -s v -l verbose -d 'Say more on stderr: -v info, -vv debug, -vvv trace'
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and not __fish_seen_subcommand_from services service backends affinity conntrack ipvs nat maglev map maps programs links cgroups devices help" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and not __fish_seen_subcommand_from services service backends affinity conntrack ipvs nat maglev map maps programs links cgroups devices help" -f -a "services" -d 'List Services as the API, the rules or kpx\'s maps describe them'
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and not __fish_seen_subcommand_from services service backends affinity conntrack ipvs nat maglev map maps programs links cgroups devices help" -f -a "service" -d 'Show everything about one Service: API, rules, maps, counters, open connections'
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and not __fish_seen_subcommand_from services service backends affinity conntrack ipvs nat maglev map maps programs links cgroups devices help" -f -a "backends" -d 'List backends and the Services that use them'
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and not __fish_seen_subcommand_from services service backends affinity conntrack ipvs nat maglev map maps programs links cgroups devices help" -f -a "affinity" -d 'List clients that stay with their backends'
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and not __fish_seen_subcommand_from services service backends affinity conntrack ipvs nat maglev map maps programs links cgroups devices help" -f -a "conntrack" -d 'Count the kernel\'s flows, or list those that a dataplane\'s packet path knows'
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and not __fish_seen_subcommand_from services service backends affinity conntrack ipvs nat maglev map maps programs links cgroups devices help" -f -a "ipvs" -d 'List virtual services of IPVS with their servers and counters'
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and not __fish_seen_subcommand_from services service backends affinity conntrack ipvs nat maglev map maps programs links cgroups devices help" -f -a "nat" -d 'List the addresses that are replaced, and by which'
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and not __fish_seen_subcommand_from services service backends affinity conntrack ipvs nat maglev map maps programs links cgroups devices help" -f -a "maglev" -d 'List how Maglev tables are shared among backends'
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and not __fish_seen_subcommand_from services service backends affinity conntrack ipvs nat maglev map maps programs links cgroups devices help" -f -a "map" -d 'Show the entries of any BPF map of the host'
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and not __fish_seen_subcommand_from services service backends affinity conntrack ipvs nat maglev map maps programs links cgroups devices help" -f -a "maps" -d 'List BPF maps of the host, and whose they are'
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and not __fish_seen_subcommand_from services service backends affinity conntrack ipvs nat maglev map maps programs links cgroups devices help" -f -a "programs" -d 'List BPF programs of the host, and whose they are'
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and not __fish_seen_subcommand_from services service backends affinity conntrack ipvs nat maglev map maps programs links cgroups devices help" -f -a "links" -d 'List BPF links of the host, with their programs'
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and not __fish_seen_subcommand_from services service backends affinity conntrack ipvs nat maglev map maps programs links cgroups devices help" -f -a "cgroups" -d 'List programs on the hooks of cgroups, in the order in which they run'
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and not __fish_seen_subcommand_from services service backends affinity conntrack ipvs nat maglev map maps programs links cgroups devices help" -f -a "devices" -d 'List programs on network interfaces: XDP, tcx, tc, netkit'
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and not __fish_seen_subcommand_from services service backends affinity conntrack ipvs nat maglev map maps programs links cgroups devices help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from services" -l via -d 'What to read [default: api with --services-from, else iptables]' -r -f -a "api\t'Services, EndpointSlices and Nodes of the Kubernetes API'
iptables\t'The rules kube-proxy wrote, legacy or nft'
nftables\t'The tables kube-proxy wrote in nftables mode'
ipvs\t'The virtual services, sets and rules kube-proxy wrote in IPVS mode'
ebpf\t'kpx\'s own pinned BPF maps'
cilium\t'Cilium\'s pinned BPF maps'"
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from services" -s n -l namespace -d 'Only Services of this namespace' -r
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from services" -l service -d 'Only this Service' -r
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from services" -l address -d 'Only where this address is a frontend, a backend or a client' -r
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from services" -l port -d 'Only where this is the port of a frontend, a backend or a client (with --address: its port)' -r
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from services" -l limit -d 'Show so many at most' -r
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from services" -l offset -d 'Leave out so many at the beginning' -r
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from services" -l interval -d 'Seconds between two looks' -r
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from services" -s o -l output -d 'Output format' -r -f -a "table\t'Aligned columns for people, about 80 wide'
wide\t'All columns'
json\t'One JSON document (or one object a line, for commands that stream)'
yaml\t'The same as YAML'
name\t'Names only, one a line'
markdown\t'Tables as Markdown, for issues and job summaries'
github\t'What there is to act on as annotations of GitHub Actions'"
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from services" -l color -d 'When to use colour' -r -f -a "auto\t'On a terminal; NO_COLOR, CLICOLOR=0, FORCE_COLOR and CLICOLOR_FORCE are heeded'
always\t'Always'
never\t'Never'"
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from services" -l config -d 'Read defaults of options from this file instead of /etc/kpx/config.toml and ~/.config/kpx/config.toml (KPX_CONFIG)' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from services" -l from -d 'Read a snapshot (directory or .tar.zst) instead of the live node' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from services" -l netns -d 'Network namespace of the node: a name from `ip netns`, or a path' -r
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from services" -l cgroup -d 'cgroup2 directory whose sockets the node serves [default: the cgroup2 root]' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from services" -l bpffs -d 'Directory on a bpf file system for pins' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from services" -l cilium-pins -d 'Directory of the maps that Cilium pins' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from services" -l state-dir -d 'Directory for journals, plans and backups' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from services" -l node-name -d 'Name of the Node object [default: from the snapshot, then the host name]' -r
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from services" -l kube-proxy-flag -d 'Flag kube-proxy was started with, where the node does not tell, such as cluster-cidr=10.244.0.0/16' -r
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from services" -l services-from -d 'API objects from a file or folder instead of a cluster' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from services" -l kubeconfig -d 'kubeconfig file' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from services" -l context -d 'Context of the kubeconfig' -r
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from services" -s w -l watch -d 'Look again and again: redrawn on a terminal, one object a line with -o json'
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from services" -l no-headers -d 'Leave out the headings of tables'
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from services" -l no-progress -d 'Show no progress'
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from services" -l no-input -d 'Never ask; fail instead, naming the flag that answers'
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from services" -s q -l quiet -d 'Say less: errors and data only'
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from services" -s v -l verbose -d 'Say more on stderr: -v info, -vv debug, -vvv trace'
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from services" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from service" -l limit -d 'Show so many open connections at most in the table' -r
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from service" -l interval -d 'Seconds between two looks' -r
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from service" -s o -l output -d 'Output format' -r -f -a "table\t'Aligned columns for people, about 80 wide'
wide\t'All columns'
json\t'One JSON document (or one object a line, for commands that stream)'
yaml\t'The same as YAML'
name\t'Names only, one a line'
markdown\t'Tables as Markdown, for issues and job summaries'
github\t'What there is to act on as annotations of GitHub Actions'"
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from service" -l color -d 'When to use colour' -r -f -a "auto\t'On a terminal; NO_COLOR, CLICOLOR=0, FORCE_COLOR and CLICOLOR_FORCE are heeded'
always\t'Always'
never\t'Never'"
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from service" -l config -d 'Read defaults of options from this file instead of /etc/kpx/config.toml and ~/.config/kpx/config.toml (KPX_CONFIG)' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from service" -l from -d 'Read a snapshot (directory or .tar.zst) instead of the live node' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from service" -l netns -d 'Network namespace of the node: a name from `ip netns`, or a path' -r
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from service" -l cgroup -d 'cgroup2 directory whose sockets the node serves [default: the cgroup2 root]' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from service" -l bpffs -d 'Directory on a bpf file system for pins' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from service" -l cilium-pins -d 'Directory of the maps that Cilium pins' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from service" -l state-dir -d 'Directory for journals, plans and backups' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from service" -l node-name -d 'Name of the Node object [default: from the snapshot, then the host name]' -r
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from service" -l kube-proxy-flag -d 'Flag kube-proxy was started with, where the node does not tell, such as cluster-cidr=10.244.0.0/16' -r
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from service" -l services-from -d 'API objects from a file or folder instead of a cluster' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from service" -l kubeconfig -d 'kubeconfig file' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from service" -l context -d 'Context of the kubeconfig' -r
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from service" -s w -l watch -d 'Look again and again: redrawn on a terminal, one object a line with -o json'
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from service" -l no-headers -d 'Leave out the headings of tables'
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from service" -l no-progress -d 'Show no progress'
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from service" -l no-input -d 'Never ask; fail instead, naming the flag that answers'
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from service" -s q -l quiet -d 'Say less: errors and data only'
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from service" -s v -l verbose -d 'Say more on stderr: -v info, -vv debug, -vvv trace'
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from service" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from backends" -l via -d 'What to read [default: api with --services-from, else iptables]' -r -f -a "api\t'Services, EndpointSlices and Nodes of the Kubernetes API'
iptables\t'The rules kube-proxy wrote, legacy or nft'
nftables\t'The tables kube-proxy wrote in nftables mode'
ipvs\t'The virtual services, sets and rules kube-proxy wrote in IPVS mode'
ebpf\t'kpx\'s own pinned BPF maps'
cilium\t'Cilium\'s pinned BPF maps'"
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from backends" -s n -l namespace -d 'Only Services of this namespace' -r
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from backends" -l service -d 'Only this Service' -r
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from backends" -l address -d 'Only where this address is a frontend, a backend or a client' -r
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from backends" -l port -d 'Only where this is the port of a frontend, a backend or a client (with --address: its port)' -r
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from backends" -l limit -d 'Show so many at most' -r
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from backends" -l offset -d 'Leave out so many at the beginning' -r
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from backends" -l interval -d 'Seconds between two looks' -r
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from backends" -s o -l output -d 'Output format' -r -f -a "table\t'Aligned columns for people, about 80 wide'
wide\t'All columns'
json\t'One JSON document (or one object a line, for commands that stream)'
yaml\t'The same as YAML'
name\t'Names only, one a line'
markdown\t'Tables as Markdown, for issues and job summaries'
github\t'What there is to act on as annotations of GitHub Actions'"
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from backends" -l color -d 'When to use colour' -r -f -a "auto\t'On a terminal; NO_COLOR, CLICOLOR=0, FORCE_COLOR and CLICOLOR_FORCE are heeded'
always\t'Always'
never\t'Never'"
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from backends" -l config -d 'Read defaults of options from this file instead of /etc/kpx/config.toml and ~/.config/kpx/config.toml (KPX_CONFIG)' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from backends" -l from -d 'Read a snapshot (directory or .tar.zst) instead of the live node' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from backends" -l netns -d 'Network namespace of the node: a name from `ip netns`, or a path' -r
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from backends" -l cgroup -d 'cgroup2 directory whose sockets the node serves [default: the cgroup2 root]' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from backends" -l bpffs -d 'Directory on a bpf file system for pins' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from backends" -l cilium-pins -d 'Directory of the maps that Cilium pins' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from backends" -l state-dir -d 'Directory for journals, plans and backups' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from backends" -l node-name -d 'Name of the Node object [default: from the snapshot, then the host name]' -r
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from backends" -l kube-proxy-flag -d 'Flag kube-proxy was started with, where the node does not tell, such as cluster-cidr=10.244.0.0/16' -r
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from backends" -l services-from -d 'API objects from a file or folder instead of a cluster' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from backends" -l kubeconfig -d 'kubeconfig file' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from backends" -l context -d 'Context of the kubeconfig' -r
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from backends" -s w -l watch -d 'Look again and again: redrawn on a terminal, one object a line with -o json'
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from backends" -l no-headers -d 'Leave out the headings of tables'
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from backends" -l no-progress -d 'Show no progress'
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from backends" -l no-input -d 'Never ask; fail instead, naming the flag that answers'
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from backends" -s q -l quiet -d 'Say less: errors and data only'
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from backends" -s v -l verbose -d 'Say more on stderr: -v info, -vv debug, -vvv trace'
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from backends" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from affinity" -l via -d 'Who remembers [default: kpx; Cilium where only its maps are pinned]' -r -f -a "ebpf\t'kpx\'s own pinned BPF maps'
cilium\t'Cilium\'s pinned BPF maps'
iptables\t'Lists of xt_recent, which kube-proxy\'s iptables rules fill'
nftables\t'Affinity sets of kube-proxy\'s nftables tables'
ipvs\t'Templates of persistent connections of IPVS'"
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from affinity" -s n -l namespace -d 'Only Services of this namespace' -r
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from affinity" -l service -d 'Only this Service' -r
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from affinity" -l address -d 'Only where this address is a frontend, a backend or a client' -r
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from affinity" -l port -d 'Only where this is the port of a frontend, a backend or a client (with --address: its port)' -r
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from affinity" -l limit -d 'Show so many at most' -r
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from affinity" -l offset -d 'Leave out so many at the beginning' -r
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from affinity" -l interval -d 'Seconds between two looks' -r
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from affinity" -s o -l output -d 'Output format' -r -f -a "table\t'Aligned columns for people, about 80 wide'
wide\t'All columns'
json\t'One JSON document (or one object a line, for commands that stream)'
yaml\t'The same as YAML'
name\t'Names only, one a line'
markdown\t'Tables as Markdown, for issues and job summaries'
github\t'What there is to act on as annotations of GitHub Actions'"
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from affinity" -l color -d 'When to use colour' -r -f -a "auto\t'On a terminal; NO_COLOR, CLICOLOR=0, FORCE_COLOR and CLICOLOR_FORCE are heeded'
always\t'Always'
never\t'Never'"
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from affinity" -l config -d 'Read defaults of options from this file instead of /etc/kpx/config.toml and ~/.config/kpx/config.toml (KPX_CONFIG)' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from affinity" -l from -d 'Read a snapshot (directory or .tar.zst) instead of the live node' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from affinity" -l netns -d 'Network namespace of the node: a name from `ip netns`, or a path' -r
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from affinity" -l cgroup -d 'cgroup2 directory whose sockets the node serves [default: the cgroup2 root]' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from affinity" -l bpffs -d 'Directory on a bpf file system for pins' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from affinity" -l cilium-pins -d 'Directory of the maps that Cilium pins' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from affinity" -l state-dir -d 'Directory for journals, plans and backups' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from affinity" -l node-name -d 'Name of the Node object [default: from the snapshot, then the host name]' -r
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from affinity" -l kube-proxy-flag -d 'Flag kube-proxy was started with, where the node does not tell, such as cluster-cidr=10.244.0.0/16' -r
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from affinity" -l services-from -d 'API objects from a file or folder instead of a cluster' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from affinity" -l kubeconfig -d 'kubeconfig file' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from affinity" -l context -d 'Context of the kubeconfig' -r
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from affinity" -s w -l watch -d 'Look again and again: redrawn on a terminal, one object a line with -o json'
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from affinity" -l no-headers -d 'Leave out the headings of tables'
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from affinity" -l no-progress -d 'Show no progress'
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from affinity" -l no-input -d 'Never ask; fail instead, naming the flag that answers'
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from affinity" -s q -l quiet -d 'Say less: errors and data only'
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from affinity" -s v -l verbose -d 'Say more on stderr: -v info, -vv debug, -vvv trace'
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from affinity" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from conntrack" -l via -d 'Whose table to read [default: kpx\'s where its packet path is attached; Cilium\'s where only its maps are pinned; else the kernel\'s, and always with --from, --by or --names]' -r -f -a "kernel\t'The kernel\'s connection tracking'
ebpf\t'kpx\'s own pinned BPF maps'
cilium\t'Cilium\'s pinned BPF maps'"
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from conntrack" -l by -d 'Count the kernel\'s entries by this [default: service]' -r -f -a "service\t'Frontend of a Service'
backend\t'Backend of a Service'
state\t'Protocol and state'
nat\t'What is translated, and by whom'"
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from conntrack" -l names -d 'Where Services and their backends are read [default: api with --services-from, else the rules]' -r -f -a "api\t'Services, EndpointSlices and Nodes of the Kubernetes API'
iptables\t'The rules kube-proxy wrote, legacy or nft'
nftables\t'The tables kube-proxy wrote in nftables mode'
ipvs\t'The virtual services, sets and rules kube-proxy wrote in IPVS mode'
ebpf\t'kpx\'s own pinned BPF maps'
cilium\t'Cilium\'s pinned BPF maps'"
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from conntrack" -s n -l namespace -d 'Only Services of this namespace' -r
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from conntrack" -l service -d 'Only this Service' -r
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from conntrack" -l address -d 'Only where this address is a frontend, a backend or a client' -r
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from conntrack" -l port -d 'Only where this is the port of a frontend, a backend or a client (with --address: its port)' -r
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from conntrack" -l limit -d 'Show so many at most' -r
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from conntrack" -l offset -d 'Leave out so many at the beginning' -r
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from conntrack" -l interval -d 'Seconds between two looks' -r
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from conntrack" -s o -l output -d 'Output format' -r -f -a "table\t'Aligned columns for people, about 80 wide'
wide\t'All columns'
json\t'One JSON document (or one object a line, for commands that stream)'
yaml\t'The same as YAML'
name\t'Names only, one a line'
markdown\t'Tables as Markdown, for issues and job summaries'
github\t'What there is to act on as annotations of GitHub Actions'"
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from conntrack" -l color -d 'When to use colour' -r -f -a "auto\t'On a terminal; NO_COLOR, CLICOLOR=0, FORCE_COLOR and CLICOLOR_FORCE are heeded'
always\t'Always'
never\t'Never'"
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from conntrack" -l config -d 'Read defaults of options from this file instead of /etc/kpx/config.toml and ~/.config/kpx/config.toml (KPX_CONFIG)' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from conntrack" -l from -d 'Read a snapshot (directory or .tar.zst) instead of the live node' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from conntrack" -l netns -d 'Network namespace of the node: a name from `ip netns`, or a path' -r
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from conntrack" -l cgroup -d 'cgroup2 directory whose sockets the node serves [default: the cgroup2 root]' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from conntrack" -l bpffs -d 'Directory on a bpf file system for pins' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from conntrack" -l cilium-pins -d 'Directory of the maps that Cilium pins' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from conntrack" -l state-dir -d 'Directory for journals, plans and backups' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from conntrack" -l node-name -d 'Name of the Node object [default: from the snapshot, then the host name]' -r
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from conntrack" -l kube-proxy-flag -d 'Flag kube-proxy was started with, where the node does not tell, such as cluster-cidr=10.244.0.0/16' -r
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from conntrack" -l services-from -d 'API objects from a file or folder instead of a cluster' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from conntrack" -l kubeconfig -d 'kubeconfig file' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from conntrack" -l context -d 'Context of the kubeconfig' -r
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from conntrack" -s w -l watch -d 'Look again and again: redrawn on a terminal, one object a line with -o json'
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from conntrack" -l no-headers -d 'Leave out the headings of tables'
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from conntrack" -l no-progress -d 'Show no progress'
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from conntrack" -l no-input -d 'Never ask; fail instead, naming the flag that answers'
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from conntrack" -s q -l quiet -d 'Say less: errors and data only'
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from conntrack" -s v -l verbose -d 'Say more on stderr: -v info, -vv debug, -vvv trace'
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from conntrack" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from ipvs" -s n -l namespace -d 'Only Services of this namespace' -r
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from ipvs" -l service -d 'Only this Service' -r
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from ipvs" -l address -d 'Only where this address is a frontend, a backend or a client' -r
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from ipvs" -l port -d 'Only where this is the port of a frontend, a backend or a client (with --address: its port)' -r
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from ipvs" -s o -l output -d 'Output format' -r -f -a "table\t'Aligned columns for people, about 80 wide'
wide\t'All columns'
json\t'One JSON document (or one object a line, for commands that stream)'
yaml\t'The same as YAML'
name\t'Names only, one a line'
markdown\t'Tables as Markdown, for issues and job summaries'
github\t'What there is to act on as annotations of GitHub Actions'"
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from ipvs" -l color -d 'When to use colour' -r -f -a "auto\t'On a terminal; NO_COLOR, CLICOLOR=0, FORCE_COLOR and CLICOLOR_FORCE are heeded'
always\t'Always'
never\t'Never'"
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from ipvs" -l config -d 'Read defaults of options from this file instead of /etc/kpx/config.toml and ~/.config/kpx/config.toml (KPX_CONFIG)' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from ipvs" -l from -d 'Read a snapshot (directory or .tar.zst) instead of the live node' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from ipvs" -l netns -d 'Network namespace of the node: a name from `ip netns`, or a path' -r
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from ipvs" -l cgroup -d 'cgroup2 directory whose sockets the node serves [default: the cgroup2 root]' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from ipvs" -l bpffs -d 'Directory on a bpf file system for pins' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from ipvs" -l cilium-pins -d 'Directory of the maps that Cilium pins' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from ipvs" -l state-dir -d 'Directory for journals, plans and backups' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from ipvs" -l node-name -d 'Name of the Node object [default: from the snapshot, then the host name]' -r
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from ipvs" -l kube-proxy-flag -d 'Flag kube-proxy was started with, where the node does not tell, such as cluster-cidr=10.244.0.0/16' -r
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from ipvs" -l services-from -d 'API objects from a file or folder instead of a cluster' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from ipvs" -l kubeconfig -d 'kubeconfig file' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from ipvs" -l context -d 'Context of the kubeconfig' -r
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from ipvs" -l foreign -d 'Only virtual services that are not kube-proxy\'s'
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from ipvs" -l no-headers -d 'Leave out the headings of tables'
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from ipvs" -l no-progress -d 'Show no progress'
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from ipvs" -l no-input -d 'Never ask; fail instead, naming the flag that answers'
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from ipvs" -s q -l quiet -d 'Say less: errors and data only'
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from ipvs" -s v -l verbose -d 'Say more on stderr: -v info, -vv debug, -vvv trace'
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from ipvs" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from nat" -l via -d 'Whose maps to read [default: kpx\'s; Cilium\'s where only they are pinned]' -r -f -a "ebpf\t'kpx\'s own pinned BPF maps'
cilium\t'Cilium\'s pinned BPF maps'"
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from nat" -s n -l namespace -d 'Only Services of this namespace' -r
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from nat" -l service -d 'Only this Service' -r
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from nat" -l address -d 'Only where this address is a frontend, a backend or a client' -r
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from nat" -l port -d 'Only where this is the port of a frontend, a backend or a client (with --address: its port)' -r
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from nat" -l limit -d 'Show so many at most' -r
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from nat" -l offset -d 'Leave out so many at the beginning' -r
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from nat" -l interval -d 'Seconds between two looks' -r
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from nat" -s o -l output -d 'Output format' -r -f -a "table\t'Aligned columns for people, about 80 wide'
wide\t'All columns'
json\t'One JSON document (or one object a line, for commands that stream)'
yaml\t'The same as YAML'
name\t'Names only, one a line'
markdown\t'Tables as Markdown, for issues and job summaries'
github\t'What there is to act on as annotations of GitHub Actions'"
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from nat" -l color -d 'When to use colour' -r -f -a "auto\t'On a terminal; NO_COLOR, CLICOLOR=0, FORCE_COLOR and CLICOLOR_FORCE are heeded'
always\t'Always'
never\t'Never'"
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from nat" -l config -d 'Read defaults of options from this file instead of /etc/kpx/config.toml and ~/.config/kpx/config.toml (KPX_CONFIG)' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from nat" -l from -d 'Read a snapshot (directory or .tar.zst) instead of the live node' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from nat" -l netns -d 'Network namespace of the node: a name from `ip netns`, or a path' -r
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from nat" -l cgroup -d 'cgroup2 directory whose sockets the node serves [default: the cgroup2 root]' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from nat" -l bpffs -d 'Directory on a bpf file system for pins' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from nat" -l cilium-pins -d 'Directory of the maps that Cilium pins' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from nat" -l state-dir -d 'Directory for journals, plans and backups' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from nat" -l node-name -d 'Name of the Node object [default: from the snapshot, then the host name]' -r
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from nat" -l kube-proxy-flag -d 'Flag kube-proxy was started with, where the node does not tell, such as cluster-cidr=10.244.0.0/16' -r
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from nat" -l services-from -d 'API objects from a file or folder instead of a cluster' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from nat" -l kubeconfig -d 'kubeconfig file' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from nat" -l context -d 'Context of the kubeconfig' -r
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from nat" -s w -l watch -d 'Look again and again: redrawn on a terminal, one object a line with -o json'
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from nat" -l no-headers -d 'Leave out the headings of tables'
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from nat" -l no-progress -d 'Show no progress'
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from nat" -l no-input -d 'Never ask; fail instead, naming the flag that answers'
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from nat" -s q -l quiet -d 'Say less: errors and data only'
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from nat" -s v -l verbose -d 'Say more on stderr: -v info, -vv debug, -vvv trace'
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from nat" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from maglev" -l via -d 'Whose maps to read [default: kpx\'s; Cilium\'s where only they are pinned]' -r -f -a "ebpf\t'kpx\'s own pinned BPF maps'
cilium\t'Cilium\'s pinned BPF maps'"
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from maglev" -s n -l namespace -d 'Only Services of this namespace' -r
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from maglev" -l service -d 'Only this Service' -r
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from maglev" -l address -d 'Only where this address is a frontend, a backend or a client' -r
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from maglev" -l port -d 'Only where this is the port of a frontend, a backend or a client (with --address: its port)' -r
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from maglev" -l limit -d 'Show so many at most' -r
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from maglev" -l offset -d 'Leave out so many at the beginning' -r
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from maglev" -l interval -d 'Seconds between two looks' -r
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from maglev" -s o -l output -d 'Output format' -r -f -a "table\t'Aligned columns for people, about 80 wide'
wide\t'All columns'
json\t'One JSON document (or one object a line, for commands that stream)'
yaml\t'The same as YAML'
name\t'Names only, one a line'
markdown\t'Tables as Markdown, for issues and job summaries'
github\t'What there is to act on as annotations of GitHub Actions'"
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from maglev" -l color -d 'When to use colour' -r -f -a "auto\t'On a terminal; NO_COLOR, CLICOLOR=0, FORCE_COLOR and CLICOLOR_FORCE are heeded'
always\t'Always'
never\t'Never'"
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from maglev" -l config -d 'Read defaults of options from this file instead of /etc/kpx/config.toml and ~/.config/kpx/config.toml (KPX_CONFIG)' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from maglev" -l from -d 'Read a snapshot (directory or .tar.zst) instead of the live node' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from maglev" -l netns -d 'Network namespace of the node: a name from `ip netns`, or a path' -r
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from maglev" -l cgroup -d 'cgroup2 directory whose sockets the node serves [default: the cgroup2 root]' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from maglev" -l bpffs -d 'Directory on a bpf file system for pins' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from maglev" -l cilium-pins -d 'Directory of the maps that Cilium pins' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from maglev" -l state-dir -d 'Directory for journals, plans and backups' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from maglev" -l node-name -d 'Name of the Node object [default: from the snapshot, then the host name]' -r
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from maglev" -l kube-proxy-flag -d 'Flag kube-proxy was started with, where the node does not tell, such as cluster-cidr=10.244.0.0/16' -r
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from maglev" -l services-from -d 'API objects from a file or folder instead of a cluster' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from maglev" -l kubeconfig -d 'kubeconfig file' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from maglev" -l context -d 'Context of the kubeconfig' -r
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from maglev" -s w -l watch -d 'Look again and again: redrawn on a terminal, one object a line with -o json'
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from maglev" -l no-headers -d 'Leave out the headings of tables'
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from maglev" -l no-progress -d 'Show no progress'
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from maglev" -l no-input -d 'Never ask; fail instead, naming the flag that answers'
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from maglev" -s q -l quiet -d 'Say less: errors and data only'
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from maglev" -s v -l verbose -d 'Say more on stderr: -v info, -vv debug, -vvv trace'
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from maglev" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from map" -l limit -d 'Show so many entries at most' -r
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from map" -l interval -d 'Seconds between two looks' -r
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from map" -s o -l output -d 'Output format' -r -f -a "table\t'Aligned columns for people, about 80 wide'
wide\t'All columns'
json\t'One JSON document (or one object a line, for commands that stream)'
yaml\t'The same as YAML'
name\t'Names only, one a line'
markdown\t'Tables as Markdown, for issues and job summaries'
github\t'What there is to act on as annotations of GitHub Actions'"
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from map" -l color -d 'When to use colour' -r -f -a "auto\t'On a terminal; NO_COLOR, CLICOLOR=0, FORCE_COLOR and CLICOLOR_FORCE are heeded'
always\t'Always'
never\t'Never'"
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from map" -l config -d 'Read defaults of options from this file instead of /etc/kpx/config.toml and ~/.config/kpx/config.toml (KPX_CONFIG)' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from map" -l from -d 'Read a snapshot (directory or .tar.zst) instead of the live node' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from map" -l netns -d 'Network namespace of the node: a name from `ip netns`, or a path' -r
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from map" -l cgroup -d 'cgroup2 directory whose sockets the node serves [default: the cgroup2 root]' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from map" -l bpffs -d 'Directory on a bpf file system for pins' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from map" -l cilium-pins -d 'Directory of the maps that Cilium pins' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from map" -l state-dir -d 'Directory for journals, plans and backups' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from map" -l node-name -d 'Name of the Node object [default: from the snapshot, then the host name]' -r
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from map" -l kube-proxy-flag -d 'Flag kube-proxy was started with, where the node does not tell, such as cluster-cidr=10.244.0.0/16' -r
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from map" -l services-from -d 'API objects from a file or folder instead of a cluster' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from map" -l kubeconfig -d 'kubeconfig file' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from map" -l context -d 'Context of the kubeconfig' -r
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from map" -l zeros -d 'Show the entries of an array that are all zero, too'
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from map" -s w -l watch -d 'Look again and again: redrawn on a terminal, one object a line with -o json'
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from map" -l no-headers -d 'Leave out the headings of tables'
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from map" -l no-progress -d 'Show no progress'
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from map" -l no-input -d 'Never ask; fail instead, naming the flag that answers'
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from map" -s q -l quiet -d 'Say less: errors and data only'
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from map" -s v -l verbose -d 'Say more on stderr: -v info, -vv debug, -vvv trace'
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from map" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from maps" -s o -l output -d 'Output format' -r -f -a "table\t'Aligned columns for people, about 80 wide'
wide\t'All columns'
json\t'One JSON document (or one object a line, for commands that stream)'
yaml\t'The same as YAML'
name\t'Names only, one a line'
markdown\t'Tables as Markdown, for issues and job summaries'
github\t'What there is to act on as annotations of GitHub Actions'"
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from maps" -l color -d 'When to use colour' -r -f -a "auto\t'On a terminal; NO_COLOR, CLICOLOR=0, FORCE_COLOR and CLICOLOR_FORCE are heeded'
always\t'Always'
never\t'Never'"
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from maps" -l config -d 'Read defaults of options from this file instead of /etc/kpx/config.toml and ~/.config/kpx/config.toml (KPX_CONFIG)' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from maps" -l from -d 'Read a snapshot (directory or .tar.zst) instead of the live node' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from maps" -l netns -d 'Network namespace of the node: a name from `ip netns`, or a path' -r
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from maps" -l cgroup -d 'cgroup2 directory whose sockets the node serves [default: the cgroup2 root]' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from maps" -l bpffs -d 'Directory on a bpf file system for pins' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from maps" -l cilium-pins -d 'Directory of the maps that Cilium pins' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from maps" -l state-dir -d 'Directory for journals, plans and backups' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from maps" -l node-name -d 'Name of the Node object [default: from the snapshot, then the host name]' -r
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from maps" -l kube-proxy-flag -d 'Flag kube-proxy was started with, where the node does not tell, such as cluster-cidr=10.244.0.0/16' -r
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from maps" -l services-from -d 'API objects from a file or folder instead of a cluster' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from maps" -l kubeconfig -d 'kubeconfig file' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from maps" -l context -d 'Context of the kubeconfig' -r
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from maps" -l ours -d 'Only kpx\'s own'
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from maps" -l no-headers -d 'Leave out the headings of tables'
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from maps" -l no-progress -d 'Show no progress'
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from maps" -l no-input -d 'Never ask; fail instead, naming the flag that answers'
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from maps" -s q -l quiet -d 'Say less: errors and data only'
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from maps" -s v -l verbose -d 'Say more on stderr: -v info, -vv debug, -vvv trace'
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from maps" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from programs" -s o -l output -d 'Output format' -r -f -a "table\t'Aligned columns for people, about 80 wide'
wide\t'All columns'
json\t'One JSON document (or one object a line, for commands that stream)'
yaml\t'The same as YAML'
name\t'Names only, one a line'
markdown\t'Tables as Markdown, for issues and job summaries'
github\t'What there is to act on as annotations of GitHub Actions'"
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from programs" -l color -d 'When to use colour' -r -f -a "auto\t'On a terminal; NO_COLOR, CLICOLOR=0, FORCE_COLOR and CLICOLOR_FORCE are heeded'
always\t'Always'
never\t'Never'"
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from programs" -l config -d 'Read defaults of options from this file instead of /etc/kpx/config.toml and ~/.config/kpx/config.toml (KPX_CONFIG)' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from programs" -l from -d 'Read a snapshot (directory or .tar.zst) instead of the live node' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from programs" -l netns -d 'Network namespace of the node: a name from `ip netns`, or a path' -r
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from programs" -l cgroup -d 'cgroup2 directory whose sockets the node serves [default: the cgroup2 root]' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from programs" -l bpffs -d 'Directory on a bpf file system for pins' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from programs" -l cilium-pins -d 'Directory of the maps that Cilium pins' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from programs" -l state-dir -d 'Directory for journals, plans and backups' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from programs" -l node-name -d 'Name of the Node object [default: from the snapshot, then the host name]' -r
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from programs" -l kube-proxy-flag -d 'Flag kube-proxy was started with, where the node does not tell, such as cluster-cidr=10.244.0.0/16' -r
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from programs" -l services-from -d 'API objects from a file or folder instead of a cluster' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from programs" -l kubeconfig -d 'kubeconfig file' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from programs" -l context -d 'Context of the kubeconfig' -r
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from programs" -l ours -d 'Only kpx\'s own'
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from programs" -l no-headers -d 'Leave out the headings of tables'
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from programs" -l no-progress -d 'Show no progress'
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from programs" -l no-input -d 'Never ask; fail instead, naming the flag that answers'
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from programs" -s q -l quiet -d 'Say less: errors and data only'
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from programs" -s v -l verbose -d 'Say more on stderr: -v info, -vv debug, -vvv trace'
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from programs" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from links" -s o -l output -d 'Output format' -r -f -a "table\t'Aligned columns for people, about 80 wide'
wide\t'All columns'
json\t'One JSON document (or one object a line, for commands that stream)'
yaml\t'The same as YAML'
name\t'Names only, one a line'
markdown\t'Tables as Markdown, for issues and job summaries'
github\t'What there is to act on as annotations of GitHub Actions'"
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from links" -l color -d 'When to use colour' -r -f -a "auto\t'On a terminal; NO_COLOR, CLICOLOR=0, FORCE_COLOR and CLICOLOR_FORCE are heeded'
always\t'Always'
never\t'Never'"
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from links" -l config -d 'Read defaults of options from this file instead of /etc/kpx/config.toml and ~/.config/kpx/config.toml (KPX_CONFIG)' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from links" -l from -d 'Read a snapshot (directory or .tar.zst) instead of the live node' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from links" -l netns -d 'Network namespace of the node: a name from `ip netns`, or a path' -r
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from links" -l cgroup -d 'cgroup2 directory whose sockets the node serves [default: the cgroup2 root]' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from links" -l bpffs -d 'Directory on a bpf file system for pins' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from links" -l cilium-pins -d 'Directory of the maps that Cilium pins' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from links" -l state-dir -d 'Directory for journals, plans and backups' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from links" -l node-name -d 'Name of the Node object [default: from the snapshot, then the host name]' -r
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from links" -l kube-proxy-flag -d 'Flag kube-proxy was started with, where the node does not tell, such as cluster-cidr=10.244.0.0/16' -r
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from links" -l services-from -d 'API objects from a file or folder instead of a cluster' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from links" -l kubeconfig -d 'kubeconfig file' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from links" -l context -d 'Context of the kubeconfig' -r
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from links" -l ours -d 'Only kpx\'s own'
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from links" -l no-headers -d 'Leave out the headings of tables'
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from links" -l no-progress -d 'Show no progress'
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from links" -l no-input -d 'Never ask; fail instead, naming the flag that answers'
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from links" -s q -l quiet -d 'Say less: errors and data only'
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from links" -s v -l verbose -d 'Say more on stderr: -v info, -vv debug, -vvv trace'
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from links" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from cgroups" -s o -l output -d 'Output format' -r -f -a "table\t'Aligned columns for people, about 80 wide'
wide\t'All columns'
json\t'One JSON document (or one object a line, for commands that stream)'
yaml\t'The same as YAML'
name\t'Names only, one a line'
markdown\t'Tables as Markdown, for issues and job summaries'
github\t'What there is to act on as annotations of GitHub Actions'"
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from cgroups" -l color -d 'When to use colour' -r -f -a "auto\t'On a terminal; NO_COLOR, CLICOLOR=0, FORCE_COLOR and CLICOLOR_FORCE are heeded'
always\t'Always'
never\t'Never'"
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from cgroups" -l config -d 'Read defaults of options from this file instead of /etc/kpx/config.toml and ~/.config/kpx/config.toml (KPX_CONFIG)' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from cgroups" -l from -d 'Read a snapshot (directory or .tar.zst) instead of the live node' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from cgroups" -l netns -d 'Network namespace of the node: a name from `ip netns`, or a path' -r
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from cgroups" -l cgroup -d 'cgroup2 directory whose sockets the node serves [default: the cgroup2 root]' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from cgroups" -l bpffs -d 'Directory on a bpf file system for pins' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from cgroups" -l cilium-pins -d 'Directory of the maps that Cilium pins' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from cgroups" -l state-dir -d 'Directory for journals, plans and backups' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from cgroups" -l node-name -d 'Name of the Node object [default: from the snapshot, then the host name]' -r
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from cgroups" -l kube-proxy-flag -d 'Flag kube-proxy was started with, where the node does not tell, such as cluster-cidr=10.244.0.0/16' -r
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from cgroups" -l services-from -d 'API objects from a file or folder instead of a cluster' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from cgroups" -l kubeconfig -d 'kubeconfig file' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from cgroups" -l context -d 'Context of the kubeconfig' -r
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from cgroups" -l ours -d 'Only kpx\'s own'
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from cgroups" -l no-headers -d 'Leave out the headings of tables'
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from cgroups" -l no-progress -d 'Show no progress'
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from cgroups" -l no-input -d 'Never ask; fail instead, naming the flag that answers'
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from cgroups" -s q -l quiet -d 'Say less: errors and data only'
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from cgroups" -s v -l verbose -d 'Say more on stderr: -v info, -vv debug, -vvv trace'
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from cgroups" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from devices" -s o -l output -d 'Output format' -r -f -a "table\t'Aligned columns for people, about 80 wide'
wide\t'All columns'
json\t'One JSON document (or one object a line, for commands that stream)'
yaml\t'The same as YAML'
name\t'Names only, one a line'
markdown\t'Tables as Markdown, for issues and job summaries'
github\t'What there is to act on as annotations of GitHub Actions'"
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from devices" -l color -d 'When to use colour' -r -f -a "auto\t'On a terminal; NO_COLOR, CLICOLOR=0, FORCE_COLOR and CLICOLOR_FORCE are heeded'
always\t'Always'
never\t'Never'"
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from devices" -l config -d 'Read defaults of options from this file instead of /etc/kpx/config.toml and ~/.config/kpx/config.toml (KPX_CONFIG)' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from devices" -l from -d 'Read a snapshot (directory or .tar.zst) instead of the live node' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from devices" -l netns -d 'Network namespace of the node: a name from `ip netns`, or a path' -r
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from devices" -l cgroup -d 'cgroup2 directory whose sockets the node serves [default: the cgroup2 root]' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from devices" -l bpffs -d 'Directory on a bpf file system for pins' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from devices" -l cilium-pins -d 'Directory of the maps that Cilium pins' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from devices" -l state-dir -d 'Directory for journals, plans and backups' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from devices" -l node-name -d 'Name of the Node object [default: from the snapshot, then the host name]' -r
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from devices" -l kube-proxy-flag -d 'Flag kube-proxy was started with, where the node does not tell, such as cluster-cidr=10.244.0.0/16' -r
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from devices" -l services-from -d 'API objects from a file or folder instead of a cluster' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from devices" -l kubeconfig -d 'kubeconfig file' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from devices" -l context -d 'Context of the kubeconfig' -r
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from devices" -l ours -d 'Only kpx\'s own'
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from devices" -l no-headers -d 'Leave out the headings of tables'
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from devices" -l no-progress -d 'Show no progress'
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from devices" -l no-input -d 'Never ask; fail instead, naming the flag that answers'
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from devices" -s q -l quiet -d 'Say less: errors and data only'
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from devices" -s v -l verbose -d 'Say more on stderr: -v info, -vv debug, -vvv trace'
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from devices" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from help" -f -a "services" -d 'List Services as the API, the rules or kpx\'s maps describe them'
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from help" -f -a "service" -d 'Show everything about one Service: API, rules, maps, counters, open connections'
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from help" -f -a "backends" -d 'List backends and the Services that use them'
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from help" -f -a "affinity" -d 'List clients that stay with their backends'
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from help" -f -a "conntrack" -d 'Count the kernel\'s flows, or list those that a dataplane\'s packet path knows'
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from help" -f -a "ipvs" -d 'List virtual services of IPVS with their servers and counters'
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from help" -f -a "nat" -d 'List the addresses that are replaced, and by which'
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from help" -f -a "maglev" -d 'List how Maglev tables are shared among backends'
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from help" -f -a "map" -d 'Show the entries of any BPF map of the host'
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from help" -f -a "maps" -d 'List BPF maps of the host, and whose they are'
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from help" -f -a "programs" -d 'List BPF programs of the host, and whose they are'
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from help" -f -a "links" -d 'List BPF links of the host, with their programs'
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from help" -f -a "cgroups" -d 'List programs on the hooks of cgroups, in the order in which they run'
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from help" -f -a "devices" -d 'List programs on network interfaces: XDP, tcx, tc, netkit'
complete -c kpx -n "__fish_kpx_using_subcommand inspect; and __fish_seen_subcommand_from help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c kpx -n "__fish_kpx_using_subcommand diff" -s n -l namespace -d 'Only Services of this namespace' -r
complete -c kpx -n "__fish_kpx_using_subcommand diff" -l service -d 'Only this Service' -r
complete -c kpx -n "__fish_kpx_using_subcommand diff" -l address -d 'Only where this address is a frontend, a backend or a client' -r
complete -c kpx -n "__fish_kpx_using_subcommand diff" -l port -d 'Only where this is the port of a frontend, a backend or a client (with --address: its port)' -r
complete -c kpx -n "__fish_kpx_using_subcommand diff" -s o -l output -d 'Output format' -r -f -a "table\t'Aligned columns for people, about 80 wide'
wide\t'All columns'
json\t'One JSON document (or one object a line, for commands that stream)'
yaml\t'The same as YAML'
name\t'Names only, one a line'
markdown\t'Tables as Markdown, for issues and job summaries'
github\t'What there is to act on as annotations of GitHub Actions'"
complete -c kpx -n "__fish_kpx_using_subcommand diff" -l color -d 'When to use colour' -r -f -a "auto\t'On a terminal; NO_COLOR, CLICOLOR=0, FORCE_COLOR and CLICOLOR_FORCE are heeded'
always\t'Always'
never\t'Never'"
complete -c kpx -n "__fish_kpx_using_subcommand diff" -l config -d 'Read defaults of options from this file instead of /etc/kpx/config.toml and ~/.config/kpx/config.toml (KPX_CONFIG)' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand diff" -l from -d 'Read a snapshot (directory or .tar.zst) instead of the live node' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand diff" -l netns -d 'Network namespace of the node: a name from `ip netns`, or a path' -r
complete -c kpx -n "__fish_kpx_using_subcommand diff" -l cgroup -d 'cgroup2 directory whose sockets the node serves [default: the cgroup2 root]' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand diff" -l bpffs -d 'Directory on a bpf file system for pins' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand diff" -l cilium-pins -d 'Directory of the maps that Cilium pins' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand diff" -l state-dir -d 'Directory for journals, plans and backups' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand diff" -l node-name -d 'Name of the Node object [default: from the snapshot, then the host name]' -r
complete -c kpx -n "__fish_kpx_using_subcommand diff" -l kube-proxy-flag -d 'Flag kube-proxy was started with, where the node does not tell, such as cluster-cidr=10.244.0.0/16' -r
complete -c kpx -n "__fish_kpx_using_subcommand diff" -l services-from -d 'API objects from a file or folder instead of a cluster' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand diff" -l kubeconfig -d 'kubeconfig file' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand diff" -l context -d 'Context of the kubeconfig' -r
complete -c kpx -n "__fish_kpx_using_subcommand diff" -l no-headers -d 'Leave out the headings of tables'
complete -c kpx -n "__fish_kpx_using_subcommand diff" -l no-progress -d 'Show no progress'
complete -c kpx -n "__fish_kpx_using_subcommand diff" -l no-input -d 'Never ask; fail instead, naming the flag that answers'
complete -c kpx -n "__fish_kpx_using_subcommand diff" -s q -l quiet -d 'Say less: errors and data only'
complete -c kpx -n "__fish_kpx_using_subcommand diff" -s v -l verbose -d 'Say more on stderr: -v info, -vv debug, -vvv trace'
complete -c kpx -n "__fish_kpx_using_subcommand diff" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c kpx -n "__fish_kpx_using_subcommand path" -l from-ip -d 'The packet\'s source address [default: a socket of the node]' -r
complete -c kpx -n "__fish_kpx_using_subcommand path" -l in-interface -d 'The interface it comes in by [default: the one that leads to its source]' -r
complete -c kpx -n "__fish_kpx_using_subcommand path" -l via -d 'Which dataplane to follow it through' -r -f -a "all\t'All that are there'
iptables\t'The rules kube-proxy wrote, legacy or nft, and all others in those tables'
nftables\t'The tables kube-proxy wrote in nftables mode'
ipvs\t'The virtual services kube-proxy wrote in IPVS mode'
ebpf\t'kpx\'s own pinned BPF maps'
cilium\t'Cilium\'s pinned BPF maps'
api\t'What the objects of the Kubernetes API ask for'"
complete -c kpx -n "__fish_kpx_using_subcommand path" -s o -l output -d 'Output format' -r -f -a "table\t'Aligned columns for people, about 80 wide'
wide\t'All columns'
json\t'One JSON document (or one object a line, for commands that stream)'
yaml\t'The same as YAML'
name\t'Names only, one a line'
markdown\t'Tables as Markdown, for issues and job summaries'
github\t'What there is to act on as annotations of GitHub Actions'"
complete -c kpx -n "__fish_kpx_using_subcommand path" -l color -d 'When to use colour' -r -f -a "auto\t'On a terminal; NO_COLOR, CLICOLOR=0, FORCE_COLOR and CLICOLOR_FORCE are heeded'
always\t'Always'
never\t'Never'"
complete -c kpx -n "__fish_kpx_using_subcommand path" -l config -d 'Read defaults of options from this file instead of /etc/kpx/config.toml and ~/.config/kpx/config.toml (KPX_CONFIG)' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand path" -l from -d 'Read a snapshot (directory or .tar.zst) instead of the live node' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand path" -l netns -d 'Network namespace of the node: a name from `ip netns`, or a path' -r
complete -c kpx -n "__fish_kpx_using_subcommand path" -l cgroup -d 'cgroup2 directory whose sockets the node serves [default: the cgroup2 root]' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand path" -l bpffs -d 'Directory on a bpf file system for pins' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand path" -l cilium-pins -d 'Directory of the maps that Cilium pins' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand path" -l state-dir -d 'Directory for journals, plans and backups' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand path" -l node-name -d 'Name of the Node object [default: from the snapshot, then the host name]' -r
complete -c kpx -n "__fish_kpx_using_subcommand path" -l kube-proxy-flag -d 'Flag kube-proxy was started with, where the node does not tell, such as cluster-cidr=10.244.0.0/16' -r
complete -c kpx -n "__fish_kpx_using_subcommand path" -l services-from -d 'API objects from a file or folder instead of a cluster' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand path" -l kubeconfig -d 'kubeconfig file' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand path" -l context -d 'Context of the kubeconfig' -r
complete -c kpx -n "__fish_kpx_using_subcommand path" -l no-headers -d 'Leave out the headings of tables'
complete -c kpx -n "__fish_kpx_using_subcommand path" -l no-progress -d 'Show no progress'
complete -c kpx -n "__fish_kpx_using_subcommand path" -l no-input -d 'Never ask; fail instead, naming the flag that answers'
complete -c kpx -n "__fish_kpx_using_subcommand path" -s q -l quiet -d 'Say less: errors and data only'
complete -c kpx -n "__fish_kpx_using_subcommand path" -s v -l verbose -d 'Say more on stderr: -v info, -vv debug, -vvv trace'
complete -c kpx -n "__fish_kpx_using_subcommand path" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c kpx -n "__fish_kpx_using_subcommand doctor" -l from-ip -d 'The client that complains' -r
complete -c kpx -n "__fish_kpx_using_subcommand doctor" -l pod-process -d 'A process of the pod to connect from [default: any that is found]' -r
complete -c kpx -n "__fish_kpx_using_subcommand doctor" -l listen -d 'How long to watch the counters of drops' -r
complete -c kpx -n "__fish_kpx_using_subcommand doctor" -s o -l output -d 'Output format' -r -f -a "table\t'Aligned columns for people, about 80 wide'
wide\t'All columns'
json\t'One JSON document (or one object a line, for commands that stream)'
yaml\t'The same as YAML'
name\t'Names only, one a line'
markdown\t'Tables as Markdown, for issues and job summaries'
github\t'What there is to act on as annotations of GitHub Actions'"
complete -c kpx -n "__fish_kpx_using_subcommand doctor" -l color -d 'When to use colour' -r -f -a "auto\t'On a terminal; NO_COLOR, CLICOLOR=0, FORCE_COLOR and CLICOLOR_FORCE are heeded'
always\t'Always'
never\t'Never'"
complete -c kpx -n "__fish_kpx_using_subcommand doctor" -l config -d 'Read defaults of options from this file instead of /etc/kpx/config.toml and ~/.config/kpx/config.toml (KPX_CONFIG)' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand doctor" -l from -d 'Read a snapshot (directory or .tar.zst) instead of the live node' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand doctor" -l netns -d 'Network namespace of the node: a name from `ip netns`, or a path' -r
complete -c kpx -n "__fish_kpx_using_subcommand doctor" -l cgroup -d 'cgroup2 directory whose sockets the node serves [default: the cgroup2 root]' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand doctor" -l bpffs -d 'Directory on a bpf file system for pins' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand doctor" -l cilium-pins -d 'Directory of the maps that Cilium pins' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand doctor" -l state-dir -d 'Directory for journals, plans and backups' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand doctor" -l node-name -d 'Name of the Node object [default: from the snapshot, then the host name]' -r
complete -c kpx -n "__fish_kpx_using_subcommand doctor" -l kube-proxy-flag -d 'Flag kube-proxy was started with, where the node does not tell, such as cluster-cidr=10.244.0.0/16' -r
complete -c kpx -n "__fish_kpx_using_subcommand doctor" -l services-from -d 'API objects from a file or folder instead of a cluster' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand doctor" -l kubeconfig -d 'kubeconfig file' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand doctor" -l context -d 'Context of the kubeconfig' -r
complete -c kpx -n "__fish_kpx_using_subcommand doctor" -l no-connect -d 'Make no connections'
complete -c kpx -n "__fish_kpx_using_subcommand doctor" -l no-headers -d 'Leave out the headings of tables'
complete -c kpx -n "__fish_kpx_using_subcommand doctor" -l no-progress -d 'Show no progress'
complete -c kpx -n "__fish_kpx_using_subcommand doctor" -l no-input -d 'Never ask; fail instead, naming the flag that answers'
complete -c kpx -n "__fish_kpx_using_subcommand doctor" -s q -l quiet -d 'Say less: errors and data only'
complete -c kpx -n "__fish_kpx_using_subcommand doctor" -s v -l verbose -d 'Say more on stderr: -v info, -vv debug, -vvv trace'
complete -c kpx -n "__fish_kpx_using_subcommand doctor" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c kpx -n "__fish_kpx_using_subcommand doctor-probe" -s o -l output -d 'Output format' -r -f -a "table\t'Aligned columns for people, about 80 wide'
wide\t'All columns'
json\t'One JSON document (or one object a line, for commands that stream)'
yaml\t'The same as YAML'
name\t'Names only, one a line'
markdown\t'Tables as Markdown, for issues and job summaries'
github\t'What there is to act on as annotations of GitHub Actions'"
complete -c kpx -n "__fish_kpx_using_subcommand doctor-probe" -l color -d 'When to use colour' -r -f -a "auto\t'On a terminal; NO_COLOR, CLICOLOR=0, FORCE_COLOR and CLICOLOR_FORCE are heeded'
always\t'Always'
never\t'Never'"
complete -c kpx -n "__fish_kpx_using_subcommand doctor-probe" -l config -d 'Read defaults of options from this file instead of /etc/kpx/config.toml and ~/.config/kpx/config.toml (KPX_CONFIG)' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand doctor-probe" -l from -d 'Read a snapshot (directory or .tar.zst) instead of the live node' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand doctor-probe" -l netns -d 'Network namespace of the node: a name from `ip netns`, or a path' -r
complete -c kpx -n "__fish_kpx_using_subcommand doctor-probe" -l cgroup -d 'cgroup2 directory whose sockets the node serves [default: the cgroup2 root]' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand doctor-probe" -l bpffs -d 'Directory on a bpf file system for pins' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand doctor-probe" -l cilium-pins -d 'Directory of the maps that Cilium pins' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand doctor-probe" -l state-dir -d 'Directory for journals, plans and backups' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand doctor-probe" -l node-name -d 'Name of the Node object [default: from the snapshot, then the host name]' -r
complete -c kpx -n "__fish_kpx_using_subcommand doctor-probe" -l kube-proxy-flag -d 'Flag kube-proxy was started with, where the node does not tell, such as cluster-cidr=10.244.0.0/16' -r
complete -c kpx -n "__fish_kpx_using_subcommand doctor-probe" -l services-from -d 'API objects from a file or folder instead of a cluster' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand doctor-probe" -l kubeconfig -d 'kubeconfig file' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand doctor-probe" -l context -d 'Context of the kubeconfig' -r
complete -c kpx -n "__fish_kpx_using_subcommand doctor-probe" -l no-headers -d 'Leave out the headings of tables'
complete -c kpx -n "__fish_kpx_using_subcommand doctor-probe" -l no-progress -d 'Show no progress'
complete -c kpx -n "__fish_kpx_using_subcommand doctor-probe" -l no-input -d 'Never ask; fail instead, naming the flag that answers'
complete -c kpx -n "__fish_kpx_using_subcommand doctor-probe" -s q -l quiet -d 'Say less: errors and data only'
complete -c kpx -n "__fish_kpx_using_subcommand doctor-probe" -s v -l verbose -d 'Say more on stderr: -v info, -vv debug, -vvv trace'
complete -c kpx -n "__fish_kpx_using_subcommand doctor-probe" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c kpx -n "__fish_kpx_using_subcommand top" -l by -d 'What a line is' -r -f -a "service\t'A Service port'
backend\t'A backend of a Service port'"
complete -c kpx -n "__fish_kpx_using_subcommand top" -l sort -d 'What comes first' -r -f -a "rate\t'Connections and datagrams per second, then flows'
flows\t'Flows'
refused\t'Refusals per second'
total\t'Connections and datagrams since the Service was first served'
name\t'Names'"
complete -c kpx -n "__fish_kpx_using_subcommand top" -l rounds -d 'Look so often and end; with -o json each look is a line' -r
complete -c kpx -n "__fish_kpx_using_subcommand top" -l interval -d 'Time between two looks, which rates are taken over' -r
complete -c kpx -n "__fish_kpx_using_subcommand top" -s n -l namespace -d 'Only Services of this namespace' -r
complete -c kpx -n "__fish_kpx_using_subcommand top" -l service -d 'Only this Service' -r
complete -c kpx -n "__fish_kpx_using_subcommand top" -l address -d 'Only where this address is a frontend, a backend or a client' -r
complete -c kpx -n "__fish_kpx_using_subcommand top" -l port -d 'Only where this is the port of a frontend, a backend or a client (with --address: its port)' -r
complete -c kpx -n "__fish_kpx_using_subcommand top" -l limit -d 'Show so many at most' -r
complete -c kpx -n "__fish_kpx_using_subcommand top" -l offset -d 'Leave out so many at the beginning' -r
complete -c kpx -n "__fish_kpx_using_subcommand top" -s o -l output -d 'Output format' -r -f -a "table\t'Aligned columns for people, about 80 wide'
wide\t'All columns'
json\t'One JSON document (or one object a line, for commands that stream)'
yaml\t'The same as YAML'
name\t'Names only, one a line'
markdown\t'Tables as Markdown, for issues and job summaries'
github\t'What there is to act on as annotations of GitHub Actions'"
complete -c kpx -n "__fish_kpx_using_subcommand top" -l color -d 'When to use colour' -r -f -a "auto\t'On a terminal; NO_COLOR, CLICOLOR=0, FORCE_COLOR and CLICOLOR_FORCE are heeded'
always\t'Always'
never\t'Never'"
complete -c kpx -n "__fish_kpx_using_subcommand top" -l config -d 'Read defaults of options from this file instead of /etc/kpx/config.toml and ~/.config/kpx/config.toml (KPX_CONFIG)' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand top" -l from -d 'Read a snapshot (directory or .tar.zst) instead of the live node' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand top" -l netns -d 'Network namespace of the node: a name from `ip netns`, or a path' -r
complete -c kpx -n "__fish_kpx_using_subcommand top" -l cgroup -d 'cgroup2 directory whose sockets the node serves [default: the cgroup2 root]' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand top" -l bpffs -d 'Directory on a bpf file system for pins' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand top" -l cilium-pins -d 'Directory of the maps that Cilium pins' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand top" -l state-dir -d 'Directory for journals, plans and backups' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand top" -l node-name -d 'Name of the Node object [default: from the snapshot, then the host name]' -r
complete -c kpx -n "__fish_kpx_using_subcommand top" -l kube-proxy-flag -d 'Flag kube-proxy was started with, where the node does not tell, such as cluster-cidr=10.244.0.0/16' -r
complete -c kpx -n "__fish_kpx_using_subcommand top" -l services-from -d 'API objects from a file or folder instead of a cluster' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand top" -l kubeconfig -d 'kubeconfig file' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand top" -l context -d 'Context of the kubeconfig' -r
complete -c kpx -n "__fish_kpx_using_subcommand top" -l active -d 'Leave out what was not used'
complete -c kpx -n "__fish_kpx_using_subcommand top" -l once -d 'Look once and end; so does -o json without --rounds'
complete -c kpx -n "__fish_kpx_using_subcommand top" -l no-headers -d 'Leave out the headings of tables'
complete -c kpx -n "__fish_kpx_using_subcommand top" -l no-progress -d 'Show no progress'
complete -c kpx -n "__fish_kpx_using_subcommand top" -l no-input -d 'Never ask; fail instead, naming the flag that answers'
complete -c kpx -n "__fish_kpx_using_subcommand top" -s q -l quiet -d 'Say less: errors and data only'
complete -c kpx -n "__fish_kpx_using_subcommand top" -s v -l verbose -d 'Say more on stderr: -v info, -vv debug, -vvv trace'
complete -c kpx -n "__fish_kpx_using_subcommand top" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c kpx -n "__fish_kpx_using_subcommand monitor" -l event -d 'Only events of these kinds' -r -f -a "translated\t'A new connection or flow was sent to a backend'
refused\t'Refused, as a rule that rejects would'
dropped\t'Dropped'
left\t'Left to the kernel\'s rules, or to whoever comes next'
affinity\t'A Service remembers the backend that a client got'
snat\t'An address of the node was chosen for the backend to see'
handed-over\t'First packet of a flow that was taken over from the kernel, or given back'"
complete -c kpx -n "__fish_kpx_using_subcommand monitor" -l reason -d 'Only for these reasons: what kpx counts (inspect, metrics), or why there is no backend' -r -f -a "no_backend\t''
no_local_backend\t''
source_range\t''
undefined_port\t''
unallocated\t''
no_address\t''
tcp_connect\t''
udp_connect\t''
udp_first\t''
refused\t''
refusal_passed\t''
drop_passed\t''
shadow\t''
yielded\t''
drain_passed\t''
missed\t''
no_storage\t''
deferred\t''
bind_refused\t''
flow_opened\t''
packet_refused\t''
packet_dropped\t''
conntrack_full\t''
no_port\t''
no_source\t''
frozen_flow\t''
affinity\t''
masqueraded\t''
taken_over\t''
given_back\t''"
complete -c kpx -n "__fish_kpx_using_subcommand monitor" -s n -l namespace -d 'Only Services of this namespace' -r
complete -c kpx -n "__fish_kpx_using_subcommand monitor" -l service -d 'Only this Service' -r
complete -c kpx -n "__fish_kpx_using_subcommand monitor" -l address -d 'Only where this address is a frontend, a backend or a client' -r
complete -c kpx -n "__fish_kpx_using_subcommand monitor" -l port -d 'Only where this is the port of a frontend, a backend or a client (with --address: its port)' -r
complete -c kpx -n "__fish_kpx_using_subcommand monitor" -l pod-cgroup -d 'Only sockets of processes in this cgroup or below: a directory, or a path below the cgroup2 root' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand monitor" -l sample -d 'Only one event of so many, at random' -r
complete -c kpx -n "__fish_kpx_using_subcommand monitor" -l count -d 'End after so many events' -r
complete -c kpx -n "__fish_kpx_using_subcommand monitor" -l duration -d 'End after this time' -r
complete -c kpx -n "__fish_kpx_using_subcommand monitor" -s o -l output -d 'Output format' -r -f -a "table\t'Aligned columns for people, about 80 wide'
wide\t'All columns'
json\t'One JSON document (or one object a line, for commands that stream)'
yaml\t'The same as YAML'
name\t'Names only, one a line'
markdown\t'Tables as Markdown, for issues and job summaries'
github\t'What there is to act on as annotations of GitHub Actions'"
complete -c kpx -n "__fish_kpx_using_subcommand monitor" -l color -d 'When to use colour' -r -f -a "auto\t'On a terminal; NO_COLOR, CLICOLOR=0, FORCE_COLOR and CLICOLOR_FORCE are heeded'
always\t'Always'
never\t'Never'"
complete -c kpx -n "__fish_kpx_using_subcommand monitor" -l config -d 'Read defaults of options from this file instead of /etc/kpx/config.toml and ~/.config/kpx/config.toml (KPX_CONFIG)' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand monitor" -l from -d 'Read a snapshot (directory or .tar.zst) instead of the live node' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand monitor" -l netns -d 'Network namespace of the node: a name from `ip netns`, or a path' -r
complete -c kpx -n "__fish_kpx_using_subcommand monitor" -l cgroup -d 'cgroup2 directory whose sockets the node serves [default: the cgroup2 root]' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand monitor" -l bpffs -d 'Directory on a bpf file system for pins' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand monitor" -l cilium-pins -d 'Directory of the maps that Cilium pins' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand monitor" -l state-dir -d 'Directory for journals, plans and backups' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand monitor" -l node-name -d 'Name of the Node object [default: from the snapshot, then the host name]' -r
complete -c kpx -n "__fish_kpx_using_subcommand monitor" -l kube-proxy-flag -d 'Flag kube-proxy was started with, where the node does not tell, such as cluster-cidr=10.244.0.0/16' -r
complete -c kpx -n "__fish_kpx_using_subcommand monitor" -l services-from -d 'API objects from a file or folder instead of a cluster' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand monitor" -l kubeconfig -d 'kubeconfig file' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand monitor" -l context -d 'Context of the kubeconfig' -r
complete -c kpx -n "__fish_kpx_using_subcommand monitor" -l no-headers -d 'Leave out the headings of tables'
complete -c kpx -n "__fish_kpx_using_subcommand monitor" -l no-progress -d 'Show no progress'
complete -c kpx -n "__fish_kpx_using_subcommand monitor" -l no-input -d 'Never ask; fail instead, naming the flag that answers'
complete -c kpx -n "__fish_kpx_using_subcommand monitor" -s q -l quiet -d 'Say less: errors and data only'
complete -c kpx -n "__fish_kpx_using_subcommand monitor" -s v -l verbose -d 'Say more on stderr: -v info, -vv debug, -vvv trace'
complete -c kpx -n "__fish_kpx_using_subcommand monitor" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c kpx -n "__fish_kpx_using_subcommand audit" -l min-severity -d 'Show findings of this severity and worse' -r -f -a "info\t'Good to know before a migration'
warning\t'Will hurt under circumstances, or when kube-proxy goes'
error\t'Hurts now, or stands in the way of any change'"
complete -c kpx -n "__fish_kpx_using_subcommand audit" -l fail-on -d 'Exit with code 2 for findings of this severity and worse' -r -f -a "info\t'Everything'
warning\t'Warnings and errors'
error\t'Errors only'
never\t'Nothing'"
complete -c kpx -n "__fish_kpx_using_subcommand audit" -l ignore -d 'Leave out a check, or only its evidence with a text in it' -r
complete -c kpx -n "__fish_kpx_using_subcommand audit" -l report -d 'Write a report to a file besides: junit or markdown' -r
complete -c kpx -n "__fish_kpx_using_subcommand audit" -s o -l output -d 'Output format' -r -f -a "table\t'Aligned columns for people, about 80 wide'
wide\t'All columns'
json\t'One JSON document (or one object a line, for commands that stream)'
yaml\t'The same as YAML'
name\t'Names only, one a line'
markdown\t'Tables as Markdown, for issues and job summaries'
github\t'What there is to act on as annotations of GitHub Actions'"
complete -c kpx -n "__fish_kpx_using_subcommand audit" -l color -d 'When to use colour' -r -f -a "auto\t'On a terminal; NO_COLOR, CLICOLOR=0, FORCE_COLOR and CLICOLOR_FORCE are heeded'
always\t'Always'
never\t'Never'"
complete -c kpx -n "__fish_kpx_using_subcommand audit" -l config -d 'Read defaults of options from this file instead of /etc/kpx/config.toml and ~/.config/kpx/config.toml (KPX_CONFIG)' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand audit" -l from -d 'Read a snapshot (directory or .tar.zst) instead of the live node' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand audit" -l netns -d 'Network namespace of the node: a name from `ip netns`, or a path' -r
complete -c kpx -n "__fish_kpx_using_subcommand audit" -l cgroup -d 'cgroup2 directory whose sockets the node serves [default: the cgroup2 root]' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand audit" -l bpffs -d 'Directory on a bpf file system for pins' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand audit" -l cilium-pins -d 'Directory of the maps that Cilium pins' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand audit" -l state-dir -d 'Directory for journals, plans and backups' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand audit" -l node-name -d 'Name of the Node object [default: from the snapshot, then the host name]' -r
complete -c kpx -n "__fish_kpx_using_subcommand audit" -l kube-proxy-flag -d 'Flag kube-proxy was started with, where the node does not tell, such as cluster-cidr=10.244.0.0/16' -r
complete -c kpx -n "__fish_kpx_using_subcommand audit" -l services-from -d 'API objects from a file or folder instead of a cluster' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand audit" -l kubeconfig -d 'kubeconfig file' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand audit" -l context -d 'Context of the kubeconfig' -r
complete -c kpx -n "__fish_kpx_using_subcommand audit" -l measure -d 'Measure how long the iptables rules take to load, in a network namespace of its own'
complete -c kpx -n "__fish_kpx_using_subcommand audit" -l no-headers -d 'Leave out the headings of tables'
complete -c kpx -n "__fish_kpx_using_subcommand audit" -l no-progress -d 'Show no progress'
complete -c kpx -n "__fish_kpx_using_subcommand audit" -l no-input -d 'Never ask; fail instead, naming the flag that answers'
complete -c kpx -n "__fish_kpx_using_subcommand audit" -s q -l quiet -d 'Say less: errors and data only'
complete -c kpx -n "__fish_kpx_using_subcommand audit" -s v -l verbose -d 'Say more on stderr: -v info, -vv debug, -vvv trace'
complete -c kpx -n "__fish_kpx_using_subcommand audit" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c kpx -n "__fish_kpx_using_subcommand preflight" -l target -d 'Whose needs to ask for' -r -f -a "kpx\t'kpx\'s own dataplane and migration'
cilium\t'Cilium\'s replacement of kube-proxy'"
complete -c kpx -n "__fish_kpx_using_subcommand preflight" -l require -d 'A feature that must be there, by identifier or name; one that cannot be told is not' -r
complete -c kpx -n "__fish_kpx_using_subcommand preflight" -l kernel-config -d 'A kernel\'s configuration: plain, packed, or in a vmlinuz with CONFIG_IKCONFIG' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand preflight" -l btf -d 'That kernel\'s BTF: of /sys/kernel/btf/vmlinux, or in a vmlinux' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand preflight" -l kernel-version -d 'That kernel\'s version [default: as its configuration says]' -r
complete -c kpx -n "__fish_kpx_using_subcommand preflight" -l fail-on -d 'Exit with code 2 for what is missing, of this severity and worse' -r -f -a "info\t'Everything'
warning\t'Warnings and errors'
error\t'Errors only'
never\t'Nothing'"
complete -c kpx -n "__fish_kpx_using_subcommand preflight" -l ignore -d 'Leave out a feature, by identifier or name' -r
complete -c kpx -n "__fish_kpx_using_subcommand preflight" -l report -d 'Write a report to a file besides: junit or markdown' -r
complete -c kpx -n "__fish_kpx_using_subcommand preflight" -s o -l output -d 'Output format' -r -f -a "table\t'Aligned columns for people, about 80 wide'
wide\t'All columns'
json\t'One JSON document (or one object a line, for commands that stream)'
yaml\t'The same as YAML'
name\t'Names only, one a line'
markdown\t'Tables as Markdown, for issues and job summaries'
github\t'What there is to act on as annotations of GitHub Actions'"
complete -c kpx -n "__fish_kpx_using_subcommand preflight" -l color -d 'When to use colour' -r -f -a "auto\t'On a terminal; NO_COLOR, CLICOLOR=0, FORCE_COLOR and CLICOLOR_FORCE are heeded'
always\t'Always'
never\t'Never'"
complete -c kpx -n "__fish_kpx_using_subcommand preflight" -l config -d 'Read defaults of options from this file instead of /etc/kpx/config.toml and ~/.config/kpx/config.toml (KPX_CONFIG)' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand preflight" -l from -d 'Read a snapshot (directory or .tar.zst) instead of the live node' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand preflight" -l netns -d 'Network namespace of the node: a name from `ip netns`, or a path' -r
complete -c kpx -n "__fish_kpx_using_subcommand preflight" -l cgroup -d 'cgroup2 directory whose sockets the node serves [default: the cgroup2 root]' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand preflight" -l bpffs -d 'Directory on a bpf file system for pins' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand preflight" -l cilium-pins -d 'Directory of the maps that Cilium pins' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand preflight" -l state-dir -d 'Directory for journals, plans and backups' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand preflight" -l node-name -d 'Name of the Node object [default: from the snapshot, then the host name]' -r
complete -c kpx -n "__fish_kpx_using_subcommand preflight" -l kube-proxy-flag -d 'Flag kube-proxy was started with, where the node does not tell, such as cluster-cidr=10.244.0.0/16' -r
complete -c kpx -n "__fish_kpx_using_subcommand preflight" -l services-from -d 'API objects from a file or folder instead of a cluster' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand preflight" -l kubeconfig -d 'kubeconfig file' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand preflight" -l context -d 'Context of the kubeconfig' -r
complete -c kpx -n "__fish_kpx_using_subcommand preflight" -l no-try -d 'Try nothing: go by what may be read'
complete -c kpx -n "__fish_kpx_using_subcommand preflight" -l no-headers -d 'Leave out the headings of tables'
complete -c kpx -n "__fish_kpx_using_subcommand preflight" -l no-progress -d 'Show no progress'
complete -c kpx -n "__fish_kpx_using_subcommand preflight" -l no-input -d 'Never ask; fail instead, naming the flag that answers'
complete -c kpx -n "__fish_kpx_using_subcommand preflight" -s q -l quiet -d 'Say less: errors and data only'
complete -c kpx -n "__fish_kpx_using_subcommand preflight" -s v -l verbose -d 'Say more on stderr: -v info, -vv debug, -vvv trace'
complete -c kpx -n "__fish_kpx_using_subcommand preflight" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c kpx -n "__fish_kpx_using_subcommand preflight-trial" -s o -l output -d 'Output format' -r -f -a "table\t'Aligned columns for people, about 80 wide'
wide\t'All columns'
json\t'One JSON document (or one object a line, for commands that stream)'
yaml\t'The same as YAML'
name\t'Names only, one a line'
markdown\t'Tables as Markdown, for issues and job summaries'
github\t'What there is to act on as annotations of GitHub Actions'"
complete -c kpx -n "__fish_kpx_using_subcommand preflight-trial" -l color -d 'When to use colour' -r -f -a "auto\t'On a terminal; NO_COLOR, CLICOLOR=0, FORCE_COLOR and CLICOLOR_FORCE are heeded'
always\t'Always'
never\t'Never'"
complete -c kpx -n "__fish_kpx_using_subcommand preflight-trial" -l config -d 'Read defaults of options from this file instead of /etc/kpx/config.toml and ~/.config/kpx/config.toml (KPX_CONFIG)' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand preflight-trial" -l from -d 'Read a snapshot (directory or .tar.zst) instead of the live node' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand preflight-trial" -l netns -d 'Network namespace of the node: a name from `ip netns`, or a path' -r
complete -c kpx -n "__fish_kpx_using_subcommand preflight-trial" -l cgroup -d 'cgroup2 directory whose sockets the node serves [default: the cgroup2 root]' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand preflight-trial" -l bpffs -d 'Directory on a bpf file system for pins' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand preflight-trial" -l cilium-pins -d 'Directory of the maps that Cilium pins' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand preflight-trial" -l state-dir -d 'Directory for journals, plans and backups' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand preflight-trial" -l node-name -d 'Name of the Node object [default: from the snapshot, then the host name]' -r
complete -c kpx -n "__fish_kpx_using_subcommand preflight-trial" -l kube-proxy-flag -d 'Flag kube-proxy was started with, where the node does not tell, such as cluster-cidr=10.244.0.0/16' -r
complete -c kpx -n "__fish_kpx_using_subcommand preflight-trial" -l services-from -d 'API objects from a file or folder instead of a cluster' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand preflight-trial" -l kubeconfig -d 'kubeconfig file' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand preflight-trial" -l context -d 'Context of the kubeconfig' -r
complete -c kpx -n "__fish_kpx_using_subcommand preflight-trial" -l no-headers -d 'Leave out the headings of tables'
complete -c kpx -n "__fish_kpx_using_subcommand preflight-trial" -l no-progress -d 'Show no progress'
complete -c kpx -n "__fish_kpx_using_subcommand preflight-trial" -l no-input -d 'Never ask; fail instead, naming the flag that answers'
complete -c kpx -n "__fish_kpx_using_subcommand preflight-trial" -s q -l quiet -d 'Say less: errors and data only'
complete -c kpx -n "__fish_kpx_using_subcommand preflight-trial" -s v -l verbose -d 'Say more on stderr: -v info, -vv debug, -vvv trace'
complete -c kpx -n "__fish_kpx_using_subcommand preflight-trial" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c kpx -n "__fish_kpx_using_subcommand explain" -s o -l output -d 'Output format' -r -f -a "table\t'Aligned columns for people, about 80 wide'
wide\t'All columns'
json\t'One JSON document (or one object a line, for commands that stream)'
yaml\t'The same as YAML'
name\t'Names only, one a line'
markdown\t'Tables as Markdown, for issues and job summaries'
github\t'What there is to act on as annotations of GitHub Actions'"
complete -c kpx -n "__fish_kpx_using_subcommand explain" -l color -d 'When to use colour' -r -f -a "auto\t'On a terminal; NO_COLOR, CLICOLOR=0, FORCE_COLOR and CLICOLOR_FORCE are heeded'
always\t'Always'
never\t'Never'"
complete -c kpx -n "__fish_kpx_using_subcommand explain" -l config -d 'Read defaults of options from this file instead of /etc/kpx/config.toml and ~/.config/kpx/config.toml (KPX_CONFIG)' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand explain" -l from -d 'Read a snapshot (directory or .tar.zst) instead of the live node' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand explain" -l netns -d 'Network namespace of the node: a name from `ip netns`, or a path' -r
complete -c kpx -n "__fish_kpx_using_subcommand explain" -l cgroup -d 'cgroup2 directory whose sockets the node serves [default: the cgroup2 root]' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand explain" -l bpffs -d 'Directory on a bpf file system for pins' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand explain" -l cilium-pins -d 'Directory of the maps that Cilium pins' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand explain" -l state-dir -d 'Directory for journals, plans and backups' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand explain" -l node-name -d 'Name of the Node object [default: from the snapshot, then the host name]' -r
complete -c kpx -n "__fish_kpx_using_subcommand explain" -l kube-proxy-flag -d 'Flag kube-proxy was started with, where the node does not tell, such as cluster-cidr=10.244.0.0/16' -r
complete -c kpx -n "__fish_kpx_using_subcommand explain" -l services-from -d 'API objects from a file or folder instead of a cluster' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand explain" -l kubeconfig -d 'kubeconfig file' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand explain" -l context -d 'Context of the kubeconfig' -r
complete -c kpx -n "__fish_kpx_using_subcommand explain" -l no-headers -d 'Leave out the headings of tables'
complete -c kpx -n "__fish_kpx_using_subcommand explain" -l no-progress -d 'Show no progress'
complete -c kpx -n "__fish_kpx_using_subcommand explain" -l no-input -d 'Never ask; fail instead, naming the flag that answers'
complete -c kpx -n "__fish_kpx_using_subcommand explain" -s q -l quiet -d 'Say less: errors and data only'
complete -c kpx -n "__fish_kpx_using_subcommand explain" -s v -l verbose -d 'Say more on stderr: -v info, -vv debug, -vvv trace'
complete -c kpx -n "__fish_kpx_using_subcommand explain" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c kpx -n "__fish_kpx_using_subcommand snapshot" -s o -l output -d 'Output format' -r -f -a "table\t'Aligned columns for people, about 80 wide'
wide\t'All columns'
json\t'One JSON document (or one object a line, for commands that stream)'
yaml\t'The same as YAML'
name\t'Names only, one a line'
markdown\t'Tables as Markdown, for issues and job summaries'
github\t'What there is to act on as annotations of GitHub Actions'"
complete -c kpx -n "__fish_kpx_using_subcommand snapshot" -l color -d 'When to use colour' -r -f -a "auto\t'On a terminal; NO_COLOR, CLICOLOR=0, FORCE_COLOR and CLICOLOR_FORCE are heeded'
always\t'Always'
never\t'Never'"
complete -c kpx -n "__fish_kpx_using_subcommand snapshot" -l config -d 'Read defaults of options from this file instead of /etc/kpx/config.toml and ~/.config/kpx/config.toml (KPX_CONFIG)' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand snapshot" -l from -d 'Read a snapshot (directory or .tar.zst) instead of the live node' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand snapshot" -l netns -d 'Network namespace of the node: a name from `ip netns`, or a path' -r
complete -c kpx -n "__fish_kpx_using_subcommand snapshot" -l cgroup -d 'cgroup2 directory whose sockets the node serves [default: the cgroup2 root]' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand snapshot" -l bpffs -d 'Directory on a bpf file system for pins' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand snapshot" -l cilium-pins -d 'Directory of the maps that Cilium pins' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand snapshot" -l state-dir -d 'Directory for journals, plans and backups' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand snapshot" -l node-name -d 'Name of the Node object [default: from the snapshot, then the host name]' -r
complete -c kpx -n "__fish_kpx_using_subcommand snapshot" -l kube-proxy-flag -d 'Flag kube-proxy was started with, where the node does not tell, such as cluster-cidr=10.244.0.0/16' -r
complete -c kpx -n "__fish_kpx_using_subcommand snapshot" -l services-from -d 'API objects from a file or folder instead of a cluster' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand snapshot" -l kubeconfig -d 'kubeconfig file' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand snapshot" -l context -d 'Context of the kubeconfig' -r
complete -c kpx -n "__fish_kpx_using_subcommand snapshot" -l no-headers -d 'Leave out the headings of tables'
complete -c kpx -n "__fish_kpx_using_subcommand snapshot" -l no-progress -d 'Show no progress'
complete -c kpx -n "__fish_kpx_using_subcommand snapshot" -l no-input -d 'Never ask; fail instead, naming the flag that answers'
complete -c kpx -n "__fish_kpx_using_subcommand snapshot" -s q -l quiet -d 'Say less: errors and data only'
complete -c kpx -n "__fish_kpx_using_subcommand snapshot" -s v -l verbose -d 'Say more on stderr: -v info, -vv debug, -vvv trace'
complete -c kpx -n "__fish_kpx_using_subcommand snapshot" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c kpx -n "__fish_kpx_using_subcommand report" -l html -d 'File to write; - for stdout' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand report" -s o -l output -d 'Output format' -r -f -a "table\t'Aligned columns for people, about 80 wide'
wide\t'All columns'
json\t'One JSON document (or one object a line, for commands that stream)'
yaml\t'The same as YAML'
name\t'Names only, one a line'
markdown\t'Tables as Markdown, for issues and job summaries'
github\t'What there is to act on as annotations of GitHub Actions'"
complete -c kpx -n "__fish_kpx_using_subcommand report" -l color -d 'When to use colour' -r -f -a "auto\t'On a terminal; NO_COLOR, CLICOLOR=0, FORCE_COLOR and CLICOLOR_FORCE are heeded'
always\t'Always'
never\t'Never'"
complete -c kpx -n "__fish_kpx_using_subcommand report" -l config -d 'Read defaults of options from this file instead of /etc/kpx/config.toml and ~/.config/kpx/config.toml (KPX_CONFIG)' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand report" -l from -d 'Read a snapshot (directory or .tar.zst) instead of the live node' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand report" -l netns -d 'Network namespace of the node: a name from `ip netns`, or a path' -r
complete -c kpx -n "__fish_kpx_using_subcommand report" -l cgroup -d 'cgroup2 directory whose sockets the node serves [default: the cgroup2 root]' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand report" -l bpffs -d 'Directory on a bpf file system for pins' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand report" -l cilium-pins -d 'Directory of the maps that Cilium pins' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand report" -l state-dir -d 'Directory for journals, plans and backups' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand report" -l node-name -d 'Name of the Node object [default: from the snapshot, then the host name]' -r
complete -c kpx -n "__fish_kpx_using_subcommand report" -l kube-proxy-flag -d 'Flag kube-proxy was started with, where the node does not tell, such as cluster-cidr=10.244.0.0/16' -r
complete -c kpx -n "__fish_kpx_using_subcommand report" -l services-from -d 'API objects from a file or folder instead of a cluster' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand report" -l kubeconfig -d 'kubeconfig file' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand report" -l context -d 'Context of the kubeconfig' -r
complete -c kpx -n "__fish_kpx_using_subcommand report" -l no-headers -d 'Leave out the headings of tables'
complete -c kpx -n "__fish_kpx_using_subcommand report" -l no-progress -d 'Show no progress'
complete -c kpx -n "__fish_kpx_using_subcommand report" -l no-input -d 'Never ask; fail instead, naming the flag that answers'
complete -c kpx -n "__fish_kpx_using_subcommand report" -s q -l quiet -d 'Say less: errors and data only'
complete -c kpx -n "__fish_kpx_using_subcommand report" -s v -l verbose -d 'Say more on stderr: -v info, -vv debug, -vvv trace'
complete -c kpx -n "__fish_kpx_using_subcommand report" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c kpx -n "__fish_kpx_using_subcommand agent" -l proxy-config -d 'kube-proxy\'s configuration: a KubeProxyConfiguration, or the folder where its ConfigMap is mounted' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand agent" -l health-address -d 'Where to answer /healthz and /livez' -r
complete -c kpx -n "__fish_kpx_using_subcommand agent" -l metrics-address -d 'Where to answer /metrics and /proxyMode' -r
complete -c kpx -n "__fish_kpx_using_subcommand agent" -l paths -d 'What to serve by: the node\'s and the pods\' sockets, packets on network devices. Packets are those of clients outside, of pods whose sockets are not in --cgroup, and of SCTP' -r -f -a "sockets\t'Hooks at sockets: connections are made to backends, and nothing is left to do per packet'
packets\t'Programs on network devices'"
complete -c kpx -n "__fish_kpx_using_subcommand agent" -l devices -d 'Network devices to serve packets on, by names with * and ?, after ! those not meant [default: all but lo and those that carry no packets of clients, such as dummy]' -r
complete -c kpx -n "__fish_kpx_using_subcommand agent" -l xdp -d 'Let network drivers forward packets of flows that are known, to backends on other nodes. Such packets meet no filter' -r -f -a "off\t'None'
generic\t'Before the stack, for any driver; no faster than none'
native\t'In the driver; a device whose driver cannot is told of'
auto\t'In the driver, where it can'"
complete -c kpx -n "__fish_kpx_using_subcommand agent" -l xdp-devices -d 'Devices for --xdp, by names as for --devices [default: hardware]' -r
complete -c kpx -n "__fish_kpx_using_subcommand agent" -l dsr -d 'For which Services backends on other nodes answer clients outside directly' -r -f -a "off\t'None'
annotated\t'Those with the annotation kpx.dev/forwarding-mode: dsr'
all\t'All but those with the annotation kpx.dev/forwarding-mode: snat'"
complete -c kpx -n "__fish_kpx_using_subcommand agent" -l backend-selection -d 'How a backend is chosen for Services that do not say' -r -f -a "random\t'By chance'
maglev\t'By a hash of the connection, the same on every node'"
complete -c kpx -n "__fish_kpx_using_subcommand agent" -l maglev-size -d 'Slots of a Maglev table, 4 bytes each: a hundred times as many as the largest Service has backends. All agents of the cluster get the same' -r
complete -c kpx -n "__fish_kpx_using_subcommand agent" -l proc-sys -d 'Where the node\'s sysctls are, if /proc/sys cannot be written' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand agent" -l interval -d 'How often to look after what is attached, and repair it' -r
complete -c kpx -n "__fish_kpx_using_subcommand agent" -l map-size -d 'Size of a map instead of the computed one, counted when maps are made: frontends, backends, slots, sources, addresses, networks, clients, affinity, conntrack, fragments, direct, yields or events' -r
complete -c kpx -n "__fish_kpx_using_subcommand agent" -s o -l output -d 'Output format' -r -f -a "table\t'Aligned columns for people, about 80 wide'
wide\t'All columns'
json\t'One JSON document (or one object a line, for commands that stream)'
yaml\t'The same as YAML'
name\t'Names only, one a line'
markdown\t'Tables as Markdown, for issues and job summaries'
github\t'What there is to act on as annotations of GitHub Actions'"
complete -c kpx -n "__fish_kpx_using_subcommand agent" -l color -d 'When to use colour' -r -f -a "auto\t'On a terminal; NO_COLOR, CLICOLOR=0, FORCE_COLOR and CLICOLOR_FORCE are heeded'
always\t'Always'
never\t'Never'"
complete -c kpx -n "__fish_kpx_using_subcommand agent" -l config -d 'Read defaults of options from this file instead of /etc/kpx/config.toml and ~/.config/kpx/config.toml (KPX_CONFIG)' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand agent" -l from -d 'Read a snapshot (directory or .tar.zst) instead of the live node' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand agent" -l netns -d 'Network namespace of the node: a name from `ip netns`, or a path' -r
complete -c kpx -n "__fish_kpx_using_subcommand agent" -l cgroup -d 'cgroup2 directory whose sockets the node serves [default: the cgroup2 root]' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand agent" -l bpffs -d 'Directory on a bpf file system for pins' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand agent" -l cilium-pins -d 'Directory of the maps that Cilium pins' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand agent" -l state-dir -d 'Directory for journals, plans and backups' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand agent" -l node-name -d 'Name of the Node object [default: from the snapshot, then the host name]' -r
complete -c kpx -n "__fish_kpx_using_subcommand agent" -l kube-proxy-flag -d 'Flag kube-proxy was started with, where the node does not tell, such as cluster-cidr=10.244.0.0/16' -r
complete -c kpx -n "__fish_kpx_using_subcommand agent" -l services-from -d 'API objects from a file or folder instead of a cluster' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand agent" -l kubeconfig -d 'kubeconfig file' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand agent" -l context -d 'Context of the kubeconfig' -r
complete -c kpx -n "__fish_kpx_using_subcommand agent" -l no-headers -d 'Leave out the headings of tables'
complete -c kpx -n "__fish_kpx_using_subcommand agent" -l no-progress -d 'Show no progress'
complete -c kpx -n "__fish_kpx_using_subcommand agent" -l no-input -d 'Never ask; fail instead, naming the flag that answers'
complete -c kpx -n "__fish_kpx_using_subcommand agent" -s q -l quiet -d 'Say less: errors and data only'
complete -c kpx -n "__fish_kpx_using_subcommand agent" -s v -l verbose -d 'Say more on stderr: -v info, -vv debug, -vvv trace'
complete -c kpx -n "__fish_kpx_using_subcommand agent" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c kpx -n "__fish_kpx_using_subcommand migrate; and not __fish_seen_subcommand_from plan rehearse apply status verify rollback list probe help" -s o -l output -d 'Output format' -r -f -a "table\t'Aligned columns for people, about 80 wide'
wide\t'All columns'
json\t'One JSON document (or one object a line, for commands that stream)'
yaml\t'The same as YAML'
name\t'Names only, one a line'
markdown\t'Tables as Markdown, for issues and job summaries'
github\t'What there is to act on as annotations of GitHub Actions'"
complete -c kpx -n "__fish_kpx_using_subcommand migrate; and not __fish_seen_subcommand_from plan rehearse apply status verify rollback list probe help" -l color -d 'When to use colour' -r -f -a "auto\t'On a terminal; NO_COLOR, CLICOLOR=0, FORCE_COLOR and CLICOLOR_FORCE are heeded'
always\t'Always'
never\t'Never'"
complete -c kpx -n "__fish_kpx_using_subcommand migrate; and not __fish_seen_subcommand_from plan rehearse apply status verify rollback list probe help" -l config -d 'Read defaults of options from this file instead of /etc/kpx/config.toml and ~/.config/kpx/config.toml (KPX_CONFIG)' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand migrate; and not __fish_seen_subcommand_from plan rehearse apply status verify rollback list probe help" -l from -d 'Read a snapshot (directory or .tar.zst) instead of the live node' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand migrate; and not __fish_seen_subcommand_from plan rehearse apply status verify rollback list probe help" -l netns -d 'Network namespace of the node: a name from `ip netns`, or a path' -r
complete -c kpx -n "__fish_kpx_using_subcommand migrate; and not __fish_seen_subcommand_from plan rehearse apply status verify rollback list probe help" -l cgroup -d 'cgroup2 directory whose sockets the node serves [default: the cgroup2 root]' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand migrate; and not __fish_seen_subcommand_from plan rehearse apply status verify rollback list probe help" -l bpffs -d 'Directory on a bpf file system for pins' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand migrate; and not __fish_seen_subcommand_from plan rehearse apply status verify rollback list probe help" -l cilium-pins -d 'Directory of the maps that Cilium pins' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand migrate; and not __fish_seen_subcommand_from plan rehearse apply status verify rollback list probe help" -l state-dir -d 'Directory for journals, plans and backups' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand migrate; and not __fish_seen_subcommand_from plan rehearse apply status verify rollback list probe help" -l node-name -d 'Name of the Node object [default: from the snapshot, then the host name]' -r
complete -c kpx -n "__fish_kpx_using_subcommand migrate; and not __fish_seen_subcommand_from plan rehearse apply status verify rollback list probe help" -l kube-proxy-flag -d 'Flag kube-proxy was started with, where the node does not tell, such as cluster-cidr=10.244.0.0/16' -r
complete -c kpx -n "__fish_kpx_using_subcommand migrate; and not __fish_seen_subcommand_from plan rehearse apply status verify rollback list probe help" -l services-from -d 'API objects from a file or folder instead of a cluster' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand migrate; and not __fish_seen_subcommand_from plan rehearse apply status verify rollback list probe help" -l kubeconfig -d 'kubeconfig file' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand migrate; and not __fish_seen_subcommand_from plan rehearse apply status verify rollback list probe help" -l context -d 'Context of the kubeconfig' -r
complete -c kpx -n "__fish_kpx_using_subcommand migrate; and not __fish_seen_subcommand_from plan rehearse apply status verify rollback list probe help" -l no-headers -d 'Leave out the headings of tables'
complete -c kpx -n "__fish_kpx_using_subcommand migrate; and not __fish_seen_subcommand_from plan rehearse apply status verify rollback list probe help" -l no-progress -d 'Show no progress'
complete -c kpx -n "__fish_kpx_using_subcommand migrate; and not __fish_seen_subcommand_from plan rehearse apply status verify rollback list probe help" -l no-input -d 'Never ask; fail instead, naming the flag that answers'
complete -c kpx -n "__fish_kpx_using_subcommand migrate; and not __fish_seen_subcommand_from plan rehearse apply status verify rollback list probe help" -s q -l quiet -d 'Say less: errors and data only'
complete -c kpx -n "__fish_kpx_using_subcommand migrate; and not __fish_seen_subcommand_from plan rehearse apply status verify rollback list probe help" -s v -l verbose -d 'Say more on stderr: -v info, -vv debug, -vvv trace'
complete -c kpx -n "__fish_kpx_using_subcommand migrate; and not __fish_seen_subcommand_from plan rehearse apply status verify rollback list probe help" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c kpx -n "__fish_kpx_using_subcommand migrate; and not __fish_seen_subcommand_from plan rehearse apply status verify rollback list probe help" -f -a "plan" -d 'Show what a migration of this node would do, and whether it may'
complete -c kpx -n "__fish_kpx_using_subcommand migrate; and not __fish_seen_subcommand_from plan rehearse apply status verify rollback list probe help" -f -a "rehearse" -d 'Try the migration of a recorded node in network namespaces, there and back, under traffic'
complete -c kpx -n "__fish_kpx_using_subcommand migrate; and not __fish_seen_subcommand_from plan rehearse apply status verify rollback list probe help" -f -a "apply" -d 'Carry the node over, or go on where an earlier run stopped'
complete -c kpx -n "__fish_kpx_using_subcommand migrate; and not __fish_seen_subcommand_from plan rehearse apply status verify rollback list probe help" -f -a "status" -d 'Show how far the migration is, looking at the node itself'
complete -c kpx -n "__fish_kpx_using_subcommand migrate; and not __fish_seen_subcommand_from plan rehearse apply status verify rollback list probe help" -f -a "verify" -d 'Compare API, rules and maps, and try connections'
complete -c kpx -n "__fish_kpx_using_subcommand migrate; and not __fish_seen_subcommand_from plan rehearse apply status verify rollback list probe help" -f -a "rollback" -d 'Bring the node back to the rules, from wherever it is'
complete -c kpx -n "__fish_kpx_using_subcommand migrate; and not __fish_seen_subcommand_from plan rehearse apply status verify rollback list probe help" -f -a "list" -d 'List past and present migrations of this node'
complete -c kpx -n "__fish_kpx_using_subcommand migrate; and not __fish_seen_subcommand_from plan rehearse apply status verify rollback list probe help" -f -a "probe" -d 'Make the connections that a request on standard input names'
complete -c kpx -n "__fish_kpx_using_subcommand migrate; and not __fish_seen_subcommand_from plan rehearse apply status verify rollback list probe help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c kpx -n "__fish_kpx_using_subcommand migrate; and __fish_seen_subcommand_from plan" -l out -d 'Write the plan to this file, for kpx migrate apply FILE' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand migrate; and __fish_seen_subcommand_from plan" -l driver -d 'Who runs kube-proxy on this node, and so how it is stopped [default: what is found]' -r
complete -c kpx -n "__fish_kpx_using_subcommand migrate; and __fish_seen_subcommand_from plan" -l stop-command -d 'Stop kube-proxy on this node by this command, run by sh, instead' -r
complete -c kpx -n "__fish_kpx_using_subcommand migrate; and __fish_seen_subcommand_from plan" -l start-command -d 'Start kube-proxy again by this command on the way back' -r
complete -c kpx -n "__fish_kpx_using_subcommand migrate; and __fish_seen_subcommand_from plan" -l accept -d 'Accept what is not as it should be, by name' -r -f -a "no-agent\t'No agent follows the API once kube-proxy is gone: endpoints that change reach nobody'
managed-daemonset\t'Who manages kube-proxy\'s DaemonSet may take kpx\'s change back: kube-proxy would write rules again'
ipvs-policies\t'eBPF follows Local policies as the API asks for, which kube-proxy in ipvs mode does not: frontends that the plan names get other endpoints for new connections, or none'
cut-connections\t'Connections through IPVS that nobody else can carry are cut if they have not ended after --drain-timeout'"
complete -c kpx -n "__fish_kpx_using_subcommand migrate; and __fish_seen_subcommand_from plan" -s o -l output -d 'Output format' -r -f -a "table\t'Aligned columns for people, about 80 wide'
wide\t'All columns'
json\t'One JSON document (or one object a line, for commands that stream)'
yaml\t'The same as YAML'
name\t'Names only, one a line'
markdown\t'Tables as Markdown, for issues and job summaries'
github\t'What there is to act on as annotations of GitHub Actions'"
complete -c kpx -n "__fish_kpx_using_subcommand migrate; and __fish_seen_subcommand_from plan" -l color -d 'When to use colour' -r -f -a "auto\t'On a terminal; NO_COLOR, CLICOLOR=0, FORCE_COLOR and CLICOLOR_FORCE are heeded'
always\t'Always'
never\t'Never'"
complete -c kpx -n "__fish_kpx_using_subcommand migrate; and __fish_seen_subcommand_from plan" -l config -d 'Read defaults of options from this file instead of /etc/kpx/config.toml and ~/.config/kpx/config.toml (KPX_CONFIG)' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand migrate; and __fish_seen_subcommand_from plan" -l from -d 'Read a snapshot (directory or .tar.zst) instead of the live node' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand migrate; and __fish_seen_subcommand_from plan" -l netns -d 'Network namespace of the node: a name from `ip netns`, or a path' -r
complete -c kpx -n "__fish_kpx_using_subcommand migrate; and __fish_seen_subcommand_from plan" -l cgroup -d 'cgroup2 directory whose sockets the node serves [default: the cgroup2 root]' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand migrate; and __fish_seen_subcommand_from plan" -l bpffs -d 'Directory on a bpf file system for pins' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand migrate; and __fish_seen_subcommand_from plan" -l cilium-pins -d 'Directory of the maps that Cilium pins' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand migrate; and __fish_seen_subcommand_from plan" -l state-dir -d 'Directory for journals, plans and backups' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand migrate; and __fish_seen_subcommand_from plan" -l node-name -d 'Name of the Node object [default: from the snapshot, then the host name]' -r
complete -c kpx -n "__fish_kpx_using_subcommand migrate; and __fish_seen_subcommand_from plan" -l kube-proxy-flag -d 'Flag kube-proxy was started with, where the node does not tell, such as cluster-cidr=10.244.0.0/16' -r
complete -c kpx -n "__fish_kpx_using_subcommand migrate; and __fish_seen_subcommand_from plan" -l services-from -d 'API objects from a file or folder instead of a cluster' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand migrate; and __fish_seen_subcommand_from plan" -l kubeconfig -d 'kubeconfig file' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand migrate; and __fish_seen_subcommand_from plan" -l context -d 'Context of the kubeconfig' -r
complete -c kpx -n "__fish_kpx_using_subcommand migrate; and __fish_seen_subcommand_from plan" -l no-headers -d 'Leave out the headings of tables'
complete -c kpx -n "__fish_kpx_using_subcommand migrate; and __fish_seen_subcommand_from plan" -l no-progress -d 'Show no progress'
complete -c kpx -n "__fish_kpx_using_subcommand migrate; and __fish_seen_subcommand_from plan" -l no-input -d 'Never ask; fail instead, naming the flag that answers'
complete -c kpx -n "__fish_kpx_using_subcommand migrate; and __fish_seen_subcommand_from plan" -s q -l quiet -d 'Say less: errors and data only'
complete -c kpx -n "__fish_kpx_using_subcommand migrate; and __fish_seen_subcommand_from plan" -s v -l verbose -d 'Say more on stderr: -v info, -vv debug, -vvv trace'
complete -c kpx -n "__fish_kpx_using_subcommand migrate; and __fish_seen_subcommand_from plan" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c kpx -n "__fish_kpx_using_subcommand migrate; and __fish_seen_subcommand_from rehearse" -l flows -d 'Flows that stay open all the time, spread over the frontends' -r
complete -c kpx -n "__fish_kpx_using_subcommand migrate; and __fish_seen_subcommand_from rehearse" -l rate -d 'Connections per second, which go round all frontends' -r
complete -c kpx -n "__fish_kpx_using_subcommand migrate; and __fish_seen_subcommand_from rehearse" -l hold -d 'Seconds that traffic runs before, between and after, at least; longer where a round of all frontends takes longer' -r
complete -c kpx -n "__fish_kpx_using_subcommand migrate; and __fish_seen_subcommand_from rehearse" -l name -d 'Name of the lab in which it happens' -r
complete -c kpx -n "__fish_kpx_using_subcommand migrate; and __fish_seen_subcommand_from rehearse" -l driver -d 'Who runs kube-proxy on this node, and so how it is stopped [default: what is found]' -r
complete -c kpx -n "__fish_kpx_using_subcommand migrate; and __fish_seen_subcommand_from rehearse" -l stop-command -d 'Stop kube-proxy on this node by this command, run by sh, instead' -r
complete -c kpx -n "__fish_kpx_using_subcommand migrate; and __fish_seen_subcommand_from rehearse" -l start-command -d 'Start kube-proxy again by this command on the way back' -r
complete -c kpx -n "__fish_kpx_using_subcommand migrate; and __fish_seen_subcommand_from rehearse" -l accept -d 'Accept what is not as it should be, by name' -r -f -a "no-agent\t'No agent follows the API once kube-proxy is gone: endpoints that change reach nobody'
managed-daemonset\t'Who manages kube-proxy\'s DaemonSet may take kpx\'s change back: kube-proxy would write rules again'
ipvs-policies\t'eBPF follows Local policies as the API asks for, which kube-proxy in ipvs mode does not: frontends that the plan names get other endpoints for new connections, or none'
cut-connections\t'Connections through IPVS that nobody else can carry are cut if they have not ended after --drain-timeout'"
complete -c kpx -n "__fish_kpx_using_subcommand migrate; and __fish_seen_subcommand_from rehearse" -s o -l output -d 'Output format' -r -f -a "table\t'Aligned columns for people, about 80 wide'
wide\t'All columns'
json\t'One JSON document (or one object a line, for commands that stream)'
yaml\t'The same as YAML'
name\t'Names only, one a line'
markdown\t'Tables as Markdown, for issues and job summaries'
github\t'What there is to act on as annotations of GitHub Actions'"
complete -c kpx -n "__fish_kpx_using_subcommand migrate; and __fish_seen_subcommand_from rehearse" -l color -d 'When to use colour' -r -f -a "auto\t'On a terminal; NO_COLOR, CLICOLOR=0, FORCE_COLOR and CLICOLOR_FORCE are heeded'
always\t'Always'
never\t'Never'"
complete -c kpx -n "__fish_kpx_using_subcommand migrate; and __fish_seen_subcommand_from rehearse" -l config -d 'Read defaults of options from this file instead of /etc/kpx/config.toml and ~/.config/kpx/config.toml (KPX_CONFIG)' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand migrate; and __fish_seen_subcommand_from rehearse" -l from -d 'Read a snapshot (directory or .tar.zst) instead of the live node' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand migrate; and __fish_seen_subcommand_from rehearse" -l netns -d 'Network namespace of the node: a name from `ip netns`, or a path' -r
complete -c kpx -n "__fish_kpx_using_subcommand migrate; and __fish_seen_subcommand_from rehearse" -l cgroup -d 'cgroup2 directory whose sockets the node serves [default: the cgroup2 root]' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand migrate; and __fish_seen_subcommand_from rehearse" -l bpffs -d 'Directory on a bpf file system for pins' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand migrate; and __fish_seen_subcommand_from rehearse" -l cilium-pins -d 'Directory of the maps that Cilium pins' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand migrate; and __fish_seen_subcommand_from rehearse" -l state-dir -d 'Directory for journals, plans and backups' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand migrate; and __fish_seen_subcommand_from rehearse" -l node-name -d 'Name of the Node object [default: from the snapshot, then the host name]' -r
complete -c kpx -n "__fish_kpx_using_subcommand migrate; and __fish_seen_subcommand_from rehearse" -l kube-proxy-flag -d 'Flag kube-proxy was started with, where the node does not tell, such as cluster-cidr=10.244.0.0/16' -r
complete -c kpx -n "__fish_kpx_using_subcommand migrate; and __fish_seen_subcommand_from rehearse" -l services-from -d 'API objects from a file or folder instead of a cluster' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand migrate; and __fish_seen_subcommand_from rehearse" -l kubeconfig -d 'kubeconfig file' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand migrate; and __fish_seen_subcommand_from rehearse" -l context -d 'Context of the kubeconfig' -r
complete -c kpx -n "__fish_kpx_using_subcommand migrate; and __fish_seen_subcommand_from rehearse" -l everywhere -d 'Let the node and its pods use addresses for clients outside (NodePorts, load balancers), too'
complete -c kpx -n "__fish_kpx_using_subcommand migrate; and __fish_seen_subcommand_from rehearse" -l no-headers -d 'Leave out the headings of tables'
complete -c kpx -n "__fish_kpx_using_subcommand migrate; and __fish_seen_subcommand_from rehearse" -l no-progress -d 'Show no progress'
complete -c kpx -n "__fish_kpx_using_subcommand migrate; and __fish_seen_subcommand_from rehearse" -l no-input -d 'Never ask; fail instead, naming the flag that answers'
complete -c kpx -n "__fish_kpx_using_subcommand migrate; and __fish_seen_subcommand_from rehearse" -s q -l quiet -d 'Say less: errors and data only'
complete -c kpx -n "__fish_kpx_using_subcommand migrate; and __fish_seen_subcommand_from rehearse" -s v -l verbose -d 'Say more on stderr: -v info, -vv debug, -vvv trace'
complete -c kpx -n "__fish_kpx_using_subcommand migrate; and __fish_seen_subcommand_from rehearse" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c kpx -n "__fish_kpx_using_subcommand migrate; and __fish_seen_subcommand_from apply" -l until -d 'Stop after this phase' -r -f -a "prepare\t'The node is recorded; nothing changes'
load\t'Programs and maps are pinned and filled; nothing is attached'
shadow\t'The hooks are attached and count what they would do; the rules serve'
sockets\t'New connections of sockets are served by the hooks; the rules stay for everything else'
hold\t'What keeps the kernel\'s conntrack and NAT at work stands beside the rules'
stop\t'No kube-proxy writes rules any more'
packets\t'New flows at network devices are served by the packet path; those that the kernel knows pass'
handover\t'Running flows have changed hands'
remove\t'kube-proxy\'s rules are gone'
release\t'Nothing keeps conntrack and NAT at work for kpx\'s sake any more'"
complete -c kpx -n "__fish_kpx_using_subcommand migrate; and __fish_seen_subcommand_from apply" -l driver -d 'Who runs kube-proxy on this node, and so how it is stopped [default: what is found]' -r
complete -c kpx -n "__fish_kpx_using_subcommand migrate; and __fish_seen_subcommand_from apply" -l stop-command -d 'Stop kube-proxy on this node by this command, run by sh, instead' -r
complete -c kpx -n "__fish_kpx_using_subcommand migrate; and __fish_seen_subcommand_from apply" -l start-command -d 'Start kube-proxy again by this command on the way back' -r
complete -c kpx -n "__fish_kpx_using_subcommand migrate; and __fish_seen_subcommand_from apply" -l accept -d 'Accept what is not as it should be, by name' -r -f -a "no-agent\t'No agent follows the API once kube-proxy is gone: endpoints that change reach nobody'
managed-daemonset\t'Who manages kube-proxy\'s DaemonSet may take kpx\'s change back: kube-proxy would write rules again'
ipvs-policies\t'eBPF follows Local policies as the API asks for, which kube-proxy in ipvs mode does not: frontends that the plan names get other endpoints for new connections, or none'
cut-connections\t'Connections through IPVS that nobody else can carry are cut if they have not ended after --drain-timeout'"
complete -c kpx -n "__fish_kpx_using_subcommand migrate; and __fish_seen_subcommand_from apply" -l lock-timeout -d 'How long to wait for another kpx that is changing this node' -r
complete -c kpx -n "__fish_kpx_using_subcommand migrate; and __fish_seen_subcommand_from apply" -l probe-timeout -d 'How long a probe waits for an answer' -r
complete -c kpx -n "__fish_kpx_using_subcommand migrate; and __fish_seen_subcommand_from apply" -l drain-timeout -d 'How long to wait for flows that nobody else can carry: UDP sockets on the way back, connections through IPVS on the way there' -r
complete -c kpx -n "__fish_kpx_using_subcommand migrate; and __fish_seen_subcommand_from apply" -s o -l output -d 'Output format' -r -f -a "table\t'Aligned columns for people, about 80 wide'
wide\t'All columns'
json\t'One JSON document (or one object a line, for commands that stream)'
yaml\t'The same as YAML'
name\t'Names only, one a line'
markdown\t'Tables as Markdown, for issues and job summaries'
github\t'What there is to act on as annotations of GitHub Actions'"
complete -c kpx -n "__fish_kpx_using_subcommand migrate; and __fish_seen_subcommand_from apply" -l color -d 'When to use colour' -r -f -a "auto\t'On a terminal; NO_COLOR, CLICOLOR=0, FORCE_COLOR and CLICOLOR_FORCE are heeded'
always\t'Always'
never\t'Never'"
complete -c kpx -n "__fish_kpx_using_subcommand migrate; and __fish_seen_subcommand_from apply" -l config -d 'Read defaults of options from this file instead of /etc/kpx/config.toml and ~/.config/kpx/config.toml (KPX_CONFIG)' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand migrate; and __fish_seen_subcommand_from apply" -l from -d 'Read a snapshot (directory or .tar.zst) instead of the live node' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand migrate; and __fish_seen_subcommand_from apply" -l netns -d 'Network namespace of the node: a name from `ip netns`, or a path' -r
complete -c kpx -n "__fish_kpx_using_subcommand migrate; and __fish_seen_subcommand_from apply" -l cgroup -d 'cgroup2 directory whose sockets the node serves [default: the cgroup2 root]' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand migrate; and __fish_seen_subcommand_from apply" -l bpffs -d 'Directory on a bpf file system for pins' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand migrate; and __fish_seen_subcommand_from apply" -l cilium-pins -d 'Directory of the maps that Cilium pins' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand migrate; and __fish_seen_subcommand_from apply" -l state-dir -d 'Directory for journals, plans and backups' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand migrate; and __fish_seen_subcommand_from apply" -l node-name -d 'Name of the Node object [default: from the snapshot, then the host name]' -r
complete -c kpx -n "__fish_kpx_using_subcommand migrate; and __fish_seen_subcommand_from apply" -l kube-proxy-flag -d 'Flag kube-proxy was started with, where the node does not tell, such as cluster-cidr=10.244.0.0/16' -r
complete -c kpx -n "__fish_kpx_using_subcommand migrate; and __fish_seen_subcommand_from apply" -l services-from -d 'API objects from a file or folder instead of a cluster' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand migrate; and __fish_seen_subcommand_from apply" -l kubeconfig -d 'kubeconfig file' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand migrate; and __fish_seen_subcommand_from apply" -l context -d 'Context of the kubeconfig' -r
complete -c kpx -n "__fish_kpx_using_subcommand migrate; and __fish_seen_subcommand_from apply" -s y -l yes -d 'Do not ask'
complete -c kpx -n "__fish_kpx_using_subcommand migrate; and __fish_seen_subcommand_from apply" -l no-headers -d 'Leave out the headings of tables'
complete -c kpx -n "__fish_kpx_using_subcommand migrate; and __fish_seen_subcommand_from apply" -l no-progress -d 'Show no progress'
complete -c kpx -n "__fish_kpx_using_subcommand migrate; and __fish_seen_subcommand_from apply" -l no-input -d 'Never ask; fail instead, naming the flag that answers'
complete -c kpx -n "__fish_kpx_using_subcommand migrate; and __fish_seen_subcommand_from apply" -s q -l quiet -d 'Say less: errors and data only'
complete -c kpx -n "__fish_kpx_using_subcommand migrate; and __fish_seen_subcommand_from apply" -s v -l verbose -d 'Say more on stderr: -v info, -vv debug, -vvv trace'
complete -c kpx -n "__fish_kpx_using_subcommand migrate; and __fish_seen_subcommand_from apply" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c kpx -n "__fish_kpx_using_subcommand migrate; and __fish_seen_subcommand_from status" -s o -l output -d 'Output format' -r -f -a "table\t'Aligned columns for people, about 80 wide'
wide\t'All columns'
json\t'One JSON document (or one object a line, for commands that stream)'
yaml\t'The same as YAML'
name\t'Names only, one a line'
markdown\t'Tables as Markdown, for issues and job summaries'
github\t'What there is to act on as annotations of GitHub Actions'"
complete -c kpx -n "__fish_kpx_using_subcommand migrate; and __fish_seen_subcommand_from status" -l color -d 'When to use colour' -r -f -a "auto\t'On a terminal; NO_COLOR, CLICOLOR=0, FORCE_COLOR and CLICOLOR_FORCE are heeded'
always\t'Always'
never\t'Never'"
complete -c kpx -n "__fish_kpx_using_subcommand migrate; and __fish_seen_subcommand_from status" -l config -d 'Read defaults of options from this file instead of /etc/kpx/config.toml and ~/.config/kpx/config.toml (KPX_CONFIG)' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand migrate; and __fish_seen_subcommand_from status" -l from -d 'Read a snapshot (directory or .tar.zst) instead of the live node' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand migrate; and __fish_seen_subcommand_from status" -l netns -d 'Network namespace of the node: a name from `ip netns`, or a path' -r
complete -c kpx -n "__fish_kpx_using_subcommand migrate; and __fish_seen_subcommand_from status" -l cgroup -d 'cgroup2 directory whose sockets the node serves [default: the cgroup2 root]' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand migrate; and __fish_seen_subcommand_from status" -l bpffs -d 'Directory on a bpf file system for pins' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand migrate; and __fish_seen_subcommand_from status" -l cilium-pins -d 'Directory of the maps that Cilium pins' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand migrate; and __fish_seen_subcommand_from status" -l state-dir -d 'Directory for journals, plans and backups' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand migrate; and __fish_seen_subcommand_from status" -l node-name -d 'Name of the Node object [default: from the snapshot, then the host name]' -r
complete -c kpx -n "__fish_kpx_using_subcommand migrate; and __fish_seen_subcommand_from status" -l kube-proxy-flag -d 'Flag kube-proxy was started with, where the node does not tell, such as cluster-cidr=10.244.0.0/16' -r
complete -c kpx -n "__fish_kpx_using_subcommand migrate; and __fish_seen_subcommand_from status" -l services-from -d 'API objects from a file or folder instead of a cluster' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand migrate; and __fish_seen_subcommand_from status" -l kubeconfig -d 'kubeconfig file' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand migrate; and __fish_seen_subcommand_from status" -l context -d 'Context of the kubeconfig' -r
complete -c kpx -n "__fish_kpx_using_subcommand migrate; and __fish_seen_subcommand_from status" -l no-headers -d 'Leave out the headings of tables'
complete -c kpx -n "__fish_kpx_using_subcommand migrate; and __fish_seen_subcommand_from status" -l no-progress -d 'Show no progress'
complete -c kpx -n "__fish_kpx_using_subcommand migrate; and __fish_seen_subcommand_from status" -l no-input -d 'Never ask; fail instead, naming the flag that answers'
complete -c kpx -n "__fish_kpx_using_subcommand migrate; and __fish_seen_subcommand_from status" -s q -l quiet -d 'Say less: errors and data only'
complete -c kpx -n "__fish_kpx_using_subcommand migrate; and __fish_seen_subcommand_from status" -s v -l verbose -d 'Say more on stderr: -v info, -vv debug, -vvv trace'
complete -c kpx -n "__fish_kpx_using_subcommand migrate; and __fish_seen_subcommand_from status" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c kpx -n "__fish_kpx_using_subcommand migrate; and __fish_seen_subcommand_from verify" -l probe-timeout -d 'How long a probe waits for an answer' -r
complete -c kpx -n "__fish_kpx_using_subcommand migrate; and __fish_seen_subcommand_from verify" -s o -l output -d 'Output format' -r -f -a "table\t'Aligned columns for people, about 80 wide'
wide\t'All columns'
json\t'One JSON document (or one object a line, for commands that stream)'
yaml\t'The same as YAML'
name\t'Names only, one a line'
markdown\t'Tables as Markdown, for issues and job summaries'
github\t'What there is to act on as annotations of GitHub Actions'"
complete -c kpx -n "__fish_kpx_using_subcommand migrate; and __fish_seen_subcommand_from verify" -l color -d 'When to use colour' -r -f -a "auto\t'On a terminal; NO_COLOR, CLICOLOR=0, FORCE_COLOR and CLICOLOR_FORCE are heeded'
always\t'Always'
never\t'Never'"
complete -c kpx -n "__fish_kpx_using_subcommand migrate; and __fish_seen_subcommand_from verify" -l config -d 'Read defaults of options from this file instead of /etc/kpx/config.toml and ~/.config/kpx/config.toml (KPX_CONFIG)' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand migrate; and __fish_seen_subcommand_from verify" -l from -d 'Read a snapshot (directory or .tar.zst) instead of the live node' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand migrate; and __fish_seen_subcommand_from verify" -l netns -d 'Network namespace of the node: a name from `ip netns`, or a path' -r
complete -c kpx -n "__fish_kpx_using_subcommand migrate; and __fish_seen_subcommand_from verify" -l cgroup -d 'cgroup2 directory whose sockets the node serves [default: the cgroup2 root]' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand migrate; and __fish_seen_subcommand_from verify" -l bpffs -d 'Directory on a bpf file system for pins' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand migrate; and __fish_seen_subcommand_from verify" -l cilium-pins -d 'Directory of the maps that Cilium pins' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand migrate; and __fish_seen_subcommand_from verify" -l state-dir -d 'Directory for journals, plans and backups' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand migrate; and __fish_seen_subcommand_from verify" -l node-name -d 'Name of the Node object [default: from the snapshot, then the host name]' -r
complete -c kpx -n "__fish_kpx_using_subcommand migrate; and __fish_seen_subcommand_from verify" -l kube-proxy-flag -d 'Flag kube-proxy was started with, where the node does not tell, such as cluster-cidr=10.244.0.0/16' -r
complete -c kpx -n "__fish_kpx_using_subcommand migrate; and __fish_seen_subcommand_from verify" -l services-from -d 'API objects from a file or folder instead of a cluster' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand migrate; and __fish_seen_subcommand_from verify" -l kubeconfig -d 'kubeconfig file' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand migrate; and __fish_seen_subcommand_from verify" -l context -d 'Context of the kubeconfig' -r
complete -c kpx -n "__fish_kpx_using_subcommand migrate; and __fish_seen_subcommand_from verify" -l no-headers -d 'Leave out the headings of tables'
complete -c kpx -n "__fish_kpx_using_subcommand migrate; and __fish_seen_subcommand_from verify" -l no-progress -d 'Show no progress'
complete -c kpx -n "__fish_kpx_using_subcommand migrate; and __fish_seen_subcommand_from verify" -l no-input -d 'Never ask; fail instead, naming the flag that answers'
complete -c kpx -n "__fish_kpx_using_subcommand migrate; and __fish_seen_subcommand_from verify" -s q -l quiet -d 'Say less: errors and data only'
complete -c kpx -n "__fish_kpx_using_subcommand migrate; and __fish_seen_subcommand_from verify" -s v -l verbose -d 'Say more on stderr: -v info, -vv debug, -vvv trace'
complete -c kpx -n "__fish_kpx_using_subcommand migrate; and __fish_seen_subcommand_from verify" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c kpx -n "__fish_kpx_using_subcommand migrate; and __fish_seen_subcommand_from rollback" -l drain-timeout -d 'How long to wait for flows that nobody else can carry: UDP sockets on the way back, connections through IPVS on the way there' -r
complete -c kpx -n "__fish_kpx_using_subcommand migrate; and __fish_seen_subcommand_from rollback" -l lock-timeout -d 'How long to wait for another kpx that is changing this node' -r
complete -c kpx -n "__fish_kpx_using_subcommand migrate; and __fish_seen_subcommand_from rollback" -s o -l output -d 'Output format' -r -f -a "table\t'Aligned columns for people, about 80 wide'
wide\t'All columns'
json\t'One JSON document (or one object a line, for commands that stream)'
yaml\t'The same as YAML'
name\t'Names only, one a line'
markdown\t'Tables as Markdown, for issues and job summaries'
github\t'What there is to act on as annotations of GitHub Actions'"
complete -c kpx -n "__fish_kpx_using_subcommand migrate; and __fish_seen_subcommand_from rollback" -l color -d 'When to use colour' -r -f -a "auto\t'On a terminal; NO_COLOR, CLICOLOR=0, FORCE_COLOR and CLICOLOR_FORCE are heeded'
always\t'Always'
never\t'Never'"
complete -c kpx -n "__fish_kpx_using_subcommand migrate; and __fish_seen_subcommand_from rollback" -l config -d 'Read defaults of options from this file instead of /etc/kpx/config.toml and ~/.config/kpx/config.toml (KPX_CONFIG)' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand migrate; and __fish_seen_subcommand_from rollback" -l from -d 'Read a snapshot (directory or .tar.zst) instead of the live node' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand migrate; and __fish_seen_subcommand_from rollback" -l netns -d 'Network namespace of the node: a name from `ip netns`, or a path' -r
complete -c kpx -n "__fish_kpx_using_subcommand migrate; and __fish_seen_subcommand_from rollback" -l cgroup -d 'cgroup2 directory whose sockets the node serves [default: the cgroup2 root]' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand migrate; and __fish_seen_subcommand_from rollback" -l bpffs -d 'Directory on a bpf file system for pins' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand migrate; and __fish_seen_subcommand_from rollback" -l cilium-pins -d 'Directory of the maps that Cilium pins' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand migrate; and __fish_seen_subcommand_from rollback" -l state-dir -d 'Directory for journals, plans and backups' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand migrate; and __fish_seen_subcommand_from rollback" -l node-name -d 'Name of the Node object [default: from the snapshot, then the host name]' -r
complete -c kpx -n "__fish_kpx_using_subcommand migrate; and __fish_seen_subcommand_from rollback" -l kube-proxy-flag -d 'Flag kube-proxy was started with, where the node does not tell, such as cluster-cidr=10.244.0.0/16' -r
complete -c kpx -n "__fish_kpx_using_subcommand migrate; and __fish_seen_subcommand_from rollback" -l services-from -d 'API objects from a file or folder instead of a cluster' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand migrate; and __fish_seen_subcommand_from rollback" -l kubeconfig -d 'kubeconfig file' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand migrate; and __fish_seen_subcommand_from rollback" -l context -d 'Context of the kubeconfig' -r
complete -c kpx -n "__fish_kpx_using_subcommand migrate; and __fish_seen_subcommand_from rollback" -l force -d 'Do not wait for sockets and flows that eBPF alone translates, nor for rules that are behind the API'
complete -c kpx -n "__fish_kpx_using_subcommand migrate; and __fish_seen_subcommand_from rollback" -l no-headers -d 'Leave out the headings of tables'
complete -c kpx -n "__fish_kpx_using_subcommand migrate; and __fish_seen_subcommand_from rollback" -l no-progress -d 'Show no progress'
complete -c kpx -n "__fish_kpx_using_subcommand migrate; and __fish_seen_subcommand_from rollback" -l no-input -d 'Never ask; fail instead, naming the flag that answers'
complete -c kpx -n "__fish_kpx_using_subcommand migrate; and __fish_seen_subcommand_from rollback" -s q -l quiet -d 'Say less: errors and data only'
complete -c kpx -n "__fish_kpx_using_subcommand migrate; and __fish_seen_subcommand_from rollback" -s v -l verbose -d 'Say more on stderr: -v info, -vv debug, -vvv trace'
complete -c kpx -n "__fish_kpx_using_subcommand migrate; and __fish_seen_subcommand_from rollback" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c kpx -n "__fish_kpx_using_subcommand migrate; and __fish_seen_subcommand_from list" -s o -l output -d 'Output format' -r -f -a "table\t'Aligned columns for people, about 80 wide'
wide\t'All columns'
json\t'One JSON document (or one object a line, for commands that stream)'
yaml\t'The same as YAML'
name\t'Names only, one a line'
markdown\t'Tables as Markdown, for issues and job summaries'
github\t'What there is to act on as annotations of GitHub Actions'"
complete -c kpx -n "__fish_kpx_using_subcommand migrate; and __fish_seen_subcommand_from list" -l color -d 'When to use colour' -r -f -a "auto\t'On a terminal; NO_COLOR, CLICOLOR=0, FORCE_COLOR and CLICOLOR_FORCE are heeded'
always\t'Always'
never\t'Never'"
complete -c kpx -n "__fish_kpx_using_subcommand migrate; and __fish_seen_subcommand_from list" -l config -d 'Read defaults of options from this file instead of /etc/kpx/config.toml and ~/.config/kpx/config.toml (KPX_CONFIG)' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand migrate; and __fish_seen_subcommand_from list" -l from -d 'Read a snapshot (directory or .tar.zst) instead of the live node' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand migrate; and __fish_seen_subcommand_from list" -l netns -d 'Network namespace of the node: a name from `ip netns`, or a path' -r
complete -c kpx -n "__fish_kpx_using_subcommand migrate; and __fish_seen_subcommand_from list" -l cgroup -d 'cgroup2 directory whose sockets the node serves [default: the cgroup2 root]' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand migrate; and __fish_seen_subcommand_from list" -l bpffs -d 'Directory on a bpf file system for pins' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand migrate; and __fish_seen_subcommand_from list" -l cilium-pins -d 'Directory of the maps that Cilium pins' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand migrate; and __fish_seen_subcommand_from list" -l state-dir -d 'Directory for journals, plans and backups' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand migrate; and __fish_seen_subcommand_from list" -l node-name -d 'Name of the Node object [default: from the snapshot, then the host name]' -r
complete -c kpx -n "__fish_kpx_using_subcommand migrate; and __fish_seen_subcommand_from list" -l kube-proxy-flag -d 'Flag kube-proxy was started with, where the node does not tell, such as cluster-cidr=10.244.0.0/16' -r
complete -c kpx -n "__fish_kpx_using_subcommand migrate; and __fish_seen_subcommand_from list" -l services-from -d 'API objects from a file or folder instead of a cluster' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand migrate; and __fish_seen_subcommand_from list" -l kubeconfig -d 'kubeconfig file' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand migrate; and __fish_seen_subcommand_from list" -l context -d 'Context of the kubeconfig' -r
complete -c kpx -n "__fish_kpx_using_subcommand migrate; and __fish_seen_subcommand_from list" -l no-headers -d 'Leave out the headings of tables'
complete -c kpx -n "__fish_kpx_using_subcommand migrate; and __fish_seen_subcommand_from list" -l no-progress -d 'Show no progress'
complete -c kpx -n "__fish_kpx_using_subcommand migrate; and __fish_seen_subcommand_from list" -l no-input -d 'Never ask; fail instead, naming the flag that answers'
complete -c kpx -n "__fish_kpx_using_subcommand migrate; and __fish_seen_subcommand_from list" -s q -l quiet -d 'Say less: errors and data only'
complete -c kpx -n "__fish_kpx_using_subcommand migrate; and __fish_seen_subcommand_from list" -s v -l verbose -d 'Say more on stderr: -v info, -vv debug, -vvv trace'
complete -c kpx -n "__fish_kpx_using_subcommand migrate; and __fish_seen_subcommand_from list" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c kpx -n "__fish_kpx_using_subcommand migrate; and __fish_seen_subcommand_from probe" -s o -l output -d 'Output format' -r -f -a "table\t'Aligned columns for people, about 80 wide'
wide\t'All columns'
json\t'One JSON document (or one object a line, for commands that stream)'
yaml\t'The same as YAML'
name\t'Names only, one a line'
markdown\t'Tables as Markdown, for issues and job summaries'
github\t'What there is to act on as annotations of GitHub Actions'"
complete -c kpx -n "__fish_kpx_using_subcommand migrate; and __fish_seen_subcommand_from probe" -l color -d 'When to use colour' -r -f -a "auto\t'On a terminal; NO_COLOR, CLICOLOR=0, FORCE_COLOR and CLICOLOR_FORCE are heeded'
always\t'Always'
never\t'Never'"
complete -c kpx -n "__fish_kpx_using_subcommand migrate; and __fish_seen_subcommand_from probe" -l config -d 'Read defaults of options from this file instead of /etc/kpx/config.toml and ~/.config/kpx/config.toml (KPX_CONFIG)' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand migrate; and __fish_seen_subcommand_from probe" -l from -d 'Read a snapshot (directory or .tar.zst) instead of the live node' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand migrate; and __fish_seen_subcommand_from probe" -l netns -d 'Network namespace of the node: a name from `ip netns`, or a path' -r
complete -c kpx -n "__fish_kpx_using_subcommand migrate; and __fish_seen_subcommand_from probe" -l cgroup -d 'cgroup2 directory whose sockets the node serves [default: the cgroup2 root]' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand migrate; and __fish_seen_subcommand_from probe" -l bpffs -d 'Directory on a bpf file system for pins' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand migrate; and __fish_seen_subcommand_from probe" -l cilium-pins -d 'Directory of the maps that Cilium pins' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand migrate; and __fish_seen_subcommand_from probe" -l state-dir -d 'Directory for journals, plans and backups' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand migrate; and __fish_seen_subcommand_from probe" -l node-name -d 'Name of the Node object [default: from the snapshot, then the host name]' -r
complete -c kpx -n "__fish_kpx_using_subcommand migrate; and __fish_seen_subcommand_from probe" -l kube-proxy-flag -d 'Flag kube-proxy was started with, where the node does not tell, such as cluster-cidr=10.244.0.0/16' -r
complete -c kpx -n "__fish_kpx_using_subcommand migrate; and __fish_seen_subcommand_from probe" -l services-from -d 'API objects from a file or folder instead of a cluster' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand migrate; and __fish_seen_subcommand_from probe" -l kubeconfig -d 'kubeconfig file' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand migrate; and __fish_seen_subcommand_from probe" -l context -d 'Context of the kubeconfig' -r
complete -c kpx -n "__fish_kpx_using_subcommand migrate; and __fish_seen_subcommand_from probe" -l no-headers -d 'Leave out the headings of tables'
complete -c kpx -n "__fish_kpx_using_subcommand migrate; and __fish_seen_subcommand_from probe" -l no-progress -d 'Show no progress'
complete -c kpx -n "__fish_kpx_using_subcommand migrate; and __fish_seen_subcommand_from probe" -l no-input -d 'Never ask; fail instead, naming the flag that answers'
complete -c kpx -n "__fish_kpx_using_subcommand migrate; and __fish_seen_subcommand_from probe" -s q -l quiet -d 'Say less: errors and data only'
complete -c kpx -n "__fish_kpx_using_subcommand migrate; and __fish_seen_subcommand_from probe" -s v -l verbose -d 'Say more on stderr: -v info, -vv debug, -vvv trace'
complete -c kpx -n "__fish_kpx_using_subcommand migrate; and __fish_seen_subcommand_from probe" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c kpx -n "__fish_kpx_using_subcommand migrate; and __fish_seen_subcommand_from help" -f -a "plan" -d 'Show what a migration of this node would do, and whether it may'
complete -c kpx -n "__fish_kpx_using_subcommand migrate; and __fish_seen_subcommand_from help" -f -a "rehearse" -d 'Try the migration of a recorded node in network namespaces, there and back, under traffic'
complete -c kpx -n "__fish_kpx_using_subcommand migrate; and __fish_seen_subcommand_from help" -f -a "apply" -d 'Carry the node over, or go on where an earlier run stopped'
complete -c kpx -n "__fish_kpx_using_subcommand migrate; and __fish_seen_subcommand_from help" -f -a "status" -d 'Show how far the migration is, looking at the node itself'
complete -c kpx -n "__fish_kpx_using_subcommand migrate; and __fish_seen_subcommand_from help" -f -a "verify" -d 'Compare API, rules and maps, and try connections'
complete -c kpx -n "__fish_kpx_using_subcommand migrate; and __fish_seen_subcommand_from help" -f -a "rollback" -d 'Bring the node back to the rules, from wherever it is'
complete -c kpx -n "__fish_kpx_using_subcommand migrate; and __fish_seen_subcommand_from help" -f -a "list" -d 'List past and present migrations of this node'
complete -c kpx -n "__fish_kpx_using_subcommand migrate; and __fish_seen_subcommand_from help" -f -a "probe" -d 'Make the connections that a request on standard input names'
complete -c kpx -n "__fish_kpx_using_subcommand migrate; and __fish_seen_subcommand_from help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c kpx -n "__fish_kpx_using_subcommand lab; and not __fish_seen_subcommand_from demo up down list traffic serve client help" -s o -l output -d 'Output format' -r -f -a "table\t'Aligned columns for people, about 80 wide'
wide\t'All columns'
json\t'One JSON document (or one object a line, for commands that stream)'
yaml\t'The same as YAML'
name\t'Names only, one a line'
markdown\t'Tables as Markdown, for issues and job summaries'
github\t'What there is to act on as annotations of GitHub Actions'"
complete -c kpx -n "__fish_kpx_using_subcommand lab; and not __fish_seen_subcommand_from demo up down list traffic serve client help" -l color -d 'When to use colour' -r -f -a "auto\t'On a terminal; NO_COLOR, CLICOLOR=0, FORCE_COLOR and CLICOLOR_FORCE are heeded'
always\t'Always'
never\t'Never'"
complete -c kpx -n "__fish_kpx_using_subcommand lab; and not __fish_seen_subcommand_from demo up down list traffic serve client help" -l config -d 'Read defaults of options from this file instead of /etc/kpx/config.toml and ~/.config/kpx/config.toml (KPX_CONFIG)' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand lab; and not __fish_seen_subcommand_from demo up down list traffic serve client help" -l from -d 'Read a snapshot (directory or .tar.zst) instead of the live node' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand lab; and not __fish_seen_subcommand_from demo up down list traffic serve client help" -l netns -d 'Network namespace of the node: a name from `ip netns`, or a path' -r
complete -c kpx -n "__fish_kpx_using_subcommand lab; and not __fish_seen_subcommand_from demo up down list traffic serve client help" -l cgroup -d 'cgroup2 directory whose sockets the node serves [default: the cgroup2 root]' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand lab; and not __fish_seen_subcommand_from demo up down list traffic serve client help" -l bpffs -d 'Directory on a bpf file system for pins' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand lab; and not __fish_seen_subcommand_from demo up down list traffic serve client help" -l cilium-pins -d 'Directory of the maps that Cilium pins' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand lab; and not __fish_seen_subcommand_from demo up down list traffic serve client help" -l state-dir -d 'Directory for journals, plans and backups' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand lab; and not __fish_seen_subcommand_from demo up down list traffic serve client help" -l node-name -d 'Name of the Node object [default: from the snapshot, then the host name]' -r
complete -c kpx -n "__fish_kpx_using_subcommand lab; and not __fish_seen_subcommand_from demo up down list traffic serve client help" -l kube-proxy-flag -d 'Flag kube-proxy was started with, where the node does not tell, such as cluster-cidr=10.244.0.0/16' -r
complete -c kpx -n "__fish_kpx_using_subcommand lab; and not __fish_seen_subcommand_from demo up down list traffic serve client help" -l services-from -d 'API objects from a file or folder instead of a cluster' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand lab; and not __fish_seen_subcommand_from demo up down list traffic serve client help" -l kubeconfig -d 'kubeconfig file' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand lab; and not __fish_seen_subcommand_from demo up down list traffic serve client help" -l context -d 'Context of the kubeconfig' -r
complete -c kpx -n "__fish_kpx_using_subcommand lab; and not __fish_seen_subcommand_from demo up down list traffic serve client help" -l no-headers -d 'Leave out the headings of tables'
complete -c kpx -n "__fish_kpx_using_subcommand lab; and not __fish_seen_subcommand_from demo up down list traffic serve client help" -l no-progress -d 'Show no progress'
complete -c kpx -n "__fish_kpx_using_subcommand lab; and not __fish_seen_subcommand_from demo up down list traffic serve client help" -l no-input -d 'Never ask; fail instead, naming the flag that answers'
complete -c kpx -n "__fish_kpx_using_subcommand lab; and not __fish_seen_subcommand_from demo up down list traffic serve client help" -s q -l quiet -d 'Say less: errors and data only'
complete -c kpx -n "__fish_kpx_using_subcommand lab; and not __fish_seen_subcommand_from demo up down list traffic serve client help" -s v -l verbose -d 'Say more on stderr: -v info, -vv debug, -vvv trace'
complete -c kpx -n "__fish_kpx_using_subcommand lab; and not __fish_seen_subcommand_from demo up down list traffic serve client help" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c kpx -n "__fish_kpx_using_subcommand lab; and not __fish_seen_subcommand_from demo up down list traffic serve client help" -f -a "demo" -d 'Watch a recorded node go to eBPF and come back, under live traffic'
complete -c kpx -n "__fish_kpx_using_subcommand lab; and not __fish_seen_subcommand_from demo up down list traffic serve client help" -f -a "up" -d 'Bring a recorded node up in network namespaces'
complete -c kpx -n "__fish_kpx_using_subcommand lab; and not __fish_seen_subcommand_from demo up down list traffic serve client help" -f -a "down" -d 'Remove a lab and everything it made, also after a crash'
complete -c kpx -n "__fish_kpx_using_subcommand lab; and not __fish_seen_subcommand_from demo up down list traffic serve client help" -f -a "list" -d 'List the labs of this machine'
complete -c kpx -n "__fish_kpx_using_subcommand lab; and not __fish_seen_subcommand_from demo up down list traffic serve client help" -f -a "traffic" -d 'Run traffic through the Services of a lab and report what it went through'
complete -c kpx -n "__fish_kpx_using_subcommand lab; and not __fish_seen_subcommand_from demo up down list traffic serve client help" -f -a "serve" -d 'Be the backends of a lab'
complete -c kpx -n "__fish_kpx_using_subcommand lab; and not __fish_seen_subcommand_from demo up down list traffic serve client help" -f -a "client" -d 'Be a client of a lab'
complete -c kpx -n "__fish_kpx_using_subcommand lab; and not __fish_seen_subcommand_from demo up down list traffic serve client help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c kpx -n "__fish_kpx_using_subcommand lab; and __fish_seen_subcommand_from demo" -l name -d 'Name of the lab' -r
complete -c kpx -n "__fish_kpx_using_subcommand lab; and __fish_seen_subcommand_from demo" -l hold -d 'Seconds to let traffic run before, between and after the changes' -r
complete -c kpx -n "__fish_kpx_using_subcommand lab; and __fish_seen_subcommand_from demo" -l flows -d 'Flows that stay open all the time' -r
complete -c kpx -n "__fish_kpx_using_subcommand lab; and __fish_seen_subcommand_from demo" -l interval -d 'Time between two records of a flow, milliseconds' -r
complete -c kpx -n "__fish_kpx_using_subcommand lab; and __fish_seen_subcommand_from demo" -l connects -d 'Short connections per second' -r
complete -c kpx -n "__fish_kpx_using_subcommand lab; and __fish_seen_subcommand_from demo" -s o -l output -d 'Output format' -r -f -a "table\t'Aligned columns for people, about 80 wide'
wide\t'All columns'
json\t'One JSON document (or one object a line, for commands that stream)'
yaml\t'The same as YAML'
name\t'Names only, one a line'
markdown\t'Tables as Markdown, for issues and job summaries'
github\t'What there is to act on as annotations of GitHub Actions'"
complete -c kpx -n "__fish_kpx_using_subcommand lab; and __fish_seen_subcommand_from demo" -l color -d 'When to use colour' -r -f -a "auto\t'On a terminal; NO_COLOR, CLICOLOR=0, FORCE_COLOR and CLICOLOR_FORCE are heeded'
always\t'Always'
never\t'Never'"
complete -c kpx -n "__fish_kpx_using_subcommand lab; and __fish_seen_subcommand_from demo" -l config -d 'Read defaults of options from this file instead of /etc/kpx/config.toml and ~/.config/kpx/config.toml (KPX_CONFIG)' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand lab; and __fish_seen_subcommand_from demo" -l from -d 'Read a snapshot (directory or .tar.zst) instead of the live node' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand lab; and __fish_seen_subcommand_from demo" -l netns -d 'Network namespace of the node: a name from `ip netns`, or a path' -r
complete -c kpx -n "__fish_kpx_using_subcommand lab; and __fish_seen_subcommand_from demo" -l cgroup -d 'cgroup2 directory whose sockets the node serves [default: the cgroup2 root]' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand lab; and __fish_seen_subcommand_from demo" -l bpffs -d 'Directory on a bpf file system for pins' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand lab; and __fish_seen_subcommand_from demo" -l cilium-pins -d 'Directory of the maps that Cilium pins' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand lab; and __fish_seen_subcommand_from demo" -l state-dir -d 'Directory for journals, plans and backups' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand lab; and __fish_seen_subcommand_from demo" -l node-name -d 'Name of the Node object [default: from the snapshot, then the host name]' -r
complete -c kpx -n "__fish_kpx_using_subcommand lab; and __fish_seen_subcommand_from demo" -l kube-proxy-flag -d 'Flag kube-proxy was started with, where the node does not tell, such as cluster-cidr=10.244.0.0/16' -r
complete -c kpx -n "__fish_kpx_using_subcommand lab; and __fish_seen_subcommand_from demo" -l services-from -d 'API objects from a file or folder instead of a cluster' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand lab; and __fish_seen_subcommand_from demo" -l kubeconfig -d 'kubeconfig file' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand lab; and __fish_seen_subcommand_from demo" -l context -d 'Context of the kubeconfig' -r
complete -c kpx -n "__fish_kpx_using_subcommand lab; and __fish_seen_subcommand_from demo" -l no-headers -d 'Leave out the headings of tables'
complete -c kpx -n "__fish_kpx_using_subcommand lab; and __fish_seen_subcommand_from demo" -l no-progress -d 'Show no progress'
complete -c kpx -n "__fish_kpx_using_subcommand lab; and __fish_seen_subcommand_from demo" -l no-input -d 'Never ask; fail instead, naming the flag that answers'
complete -c kpx -n "__fish_kpx_using_subcommand lab; and __fish_seen_subcommand_from demo" -s q -l quiet -d 'Say less: errors and data only'
complete -c kpx -n "__fish_kpx_using_subcommand lab; and __fish_seen_subcommand_from demo" -s v -l verbose -d 'Say more on stderr: -v info, -vv debug, -vvv trace'
complete -c kpx -n "__fish_kpx_using_subcommand lab; and __fish_seen_subcommand_from demo" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c kpx -n "__fish_kpx_using_subcommand lab; and __fish_seen_subcommand_from up" -l name -d 'Name of the lab' -r
complete -c kpx -n "__fish_kpx_using_subcommand lab; and __fish_seen_subcommand_from up" -s o -l output -d 'Output format' -r -f -a "table\t'Aligned columns for people, about 80 wide'
wide\t'All columns'
json\t'One JSON document (or one object a line, for commands that stream)'
yaml\t'The same as YAML'
name\t'Names only, one a line'
markdown\t'Tables as Markdown, for issues and job summaries'
github\t'What there is to act on as annotations of GitHub Actions'"
complete -c kpx -n "__fish_kpx_using_subcommand lab; and __fish_seen_subcommand_from up" -l color -d 'When to use colour' -r -f -a "auto\t'On a terminal; NO_COLOR, CLICOLOR=0, FORCE_COLOR and CLICOLOR_FORCE are heeded'
always\t'Always'
never\t'Never'"
complete -c kpx -n "__fish_kpx_using_subcommand lab; and __fish_seen_subcommand_from up" -l config -d 'Read defaults of options from this file instead of /etc/kpx/config.toml and ~/.config/kpx/config.toml (KPX_CONFIG)' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand lab; and __fish_seen_subcommand_from up" -l from -d 'Read a snapshot (directory or .tar.zst) instead of the live node' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand lab; and __fish_seen_subcommand_from up" -l netns -d 'Network namespace of the node: a name from `ip netns`, or a path' -r
complete -c kpx -n "__fish_kpx_using_subcommand lab; and __fish_seen_subcommand_from up" -l cgroup -d 'cgroup2 directory whose sockets the node serves [default: the cgroup2 root]' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand lab; and __fish_seen_subcommand_from up" -l bpffs -d 'Directory on a bpf file system for pins' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand lab; and __fish_seen_subcommand_from up" -l cilium-pins -d 'Directory of the maps that Cilium pins' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand lab; and __fish_seen_subcommand_from up" -l state-dir -d 'Directory for journals, plans and backups' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand lab; and __fish_seen_subcommand_from up" -l node-name -d 'Name of the Node object [default: from the snapshot, then the host name]' -r
complete -c kpx -n "__fish_kpx_using_subcommand lab; and __fish_seen_subcommand_from up" -l kube-proxy-flag -d 'Flag kube-proxy was started with, where the node does not tell, such as cluster-cidr=10.244.0.0/16' -r
complete -c kpx -n "__fish_kpx_using_subcommand lab; and __fish_seen_subcommand_from up" -l services-from -d 'API objects from a file or folder instead of a cluster' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand lab; and __fish_seen_subcommand_from up" -l kubeconfig -d 'kubeconfig file' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand lab; and __fish_seen_subcommand_from up" -l context -d 'Context of the kubeconfig' -r
complete -c kpx -n "__fish_kpx_using_subcommand lab; and __fish_seen_subcommand_from up" -l no-headers -d 'Leave out the headings of tables'
complete -c kpx -n "__fish_kpx_using_subcommand lab; and __fish_seen_subcommand_from up" -l no-progress -d 'Show no progress'
complete -c kpx -n "__fish_kpx_using_subcommand lab; and __fish_seen_subcommand_from up" -l no-input -d 'Never ask; fail instead, naming the flag that answers'
complete -c kpx -n "__fish_kpx_using_subcommand lab; and __fish_seen_subcommand_from up" -s q -l quiet -d 'Say less: errors and data only'
complete -c kpx -n "__fish_kpx_using_subcommand lab; and __fish_seen_subcommand_from up" -s v -l verbose -d 'Say more on stderr: -v info, -vv debug, -vvv trace'
complete -c kpx -n "__fish_kpx_using_subcommand lab; and __fish_seen_subcommand_from up" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c kpx -n "__fish_kpx_using_subcommand lab; and __fish_seen_subcommand_from down" -s o -l output -d 'Output format' -r -f -a "table\t'Aligned columns for people, about 80 wide'
wide\t'All columns'
json\t'One JSON document (or one object a line, for commands that stream)'
yaml\t'The same as YAML'
name\t'Names only, one a line'
markdown\t'Tables as Markdown, for issues and job summaries'
github\t'What there is to act on as annotations of GitHub Actions'"
complete -c kpx -n "__fish_kpx_using_subcommand lab; and __fish_seen_subcommand_from down" -l color -d 'When to use colour' -r -f -a "auto\t'On a terminal; NO_COLOR, CLICOLOR=0, FORCE_COLOR and CLICOLOR_FORCE are heeded'
always\t'Always'
never\t'Never'"
complete -c kpx -n "__fish_kpx_using_subcommand lab; and __fish_seen_subcommand_from down" -l config -d 'Read defaults of options from this file instead of /etc/kpx/config.toml and ~/.config/kpx/config.toml (KPX_CONFIG)' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand lab; and __fish_seen_subcommand_from down" -l from -d 'Read a snapshot (directory or .tar.zst) instead of the live node' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand lab; and __fish_seen_subcommand_from down" -l netns -d 'Network namespace of the node: a name from `ip netns`, or a path' -r
complete -c kpx -n "__fish_kpx_using_subcommand lab; and __fish_seen_subcommand_from down" -l cgroup -d 'cgroup2 directory whose sockets the node serves [default: the cgroup2 root]' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand lab; and __fish_seen_subcommand_from down" -l bpffs -d 'Directory on a bpf file system for pins' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand lab; and __fish_seen_subcommand_from down" -l cilium-pins -d 'Directory of the maps that Cilium pins' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand lab; and __fish_seen_subcommand_from down" -l state-dir -d 'Directory for journals, plans and backups' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand lab; and __fish_seen_subcommand_from down" -l node-name -d 'Name of the Node object [default: from the snapshot, then the host name]' -r
complete -c kpx -n "__fish_kpx_using_subcommand lab; and __fish_seen_subcommand_from down" -l kube-proxy-flag -d 'Flag kube-proxy was started with, where the node does not tell, such as cluster-cidr=10.244.0.0/16' -r
complete -c kpx -n "__fish_kpx_using_subcommand lab; and __fish_seen_subcommand_from down" -l services-from -d 'API objects from a file or folder instead of a cluster' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand lab; and __fish_seen_subcommand_from down" -l kubeconfig -d 'kubeconfig file' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand lab; and __fish_seen_subcommand_from down" -l context -d 'Context of the kubeconfig' -r
complete -c kpx -n "__fish_kpx_using_subcommand lab; and __fish_seen_subcommand_from down" -l all -d 'Remove all labs'
complete -c kpx -n "__fish_kpx_using_subcommand lab; and __fish_seen_subcommand_from down" -l no-headers -d 'Leave out the headings of tables'
complete -c kpx -n "__fish_kpx_using_subcommand lab; and __fish_seen_subcommand_from down" -l no-progress -d 'Show no progress'
complete -c kpx -n "__fish_kpx_using_subcommand lab; and __fish_seen_subcommand_from down" -l no-input -d 'Never ask; fail instead, naming the flag that answers'
complete -c kpx -n "__fish_kpx_using_subcommand lab; and __fish_seen_subcommand_from down" -s q -l quiet -d 'Say less: errors and data only'
complete -c kpx -n "__fish_kpx_using_subcommand lab; and __fish_seen_subcommand_from down" -s v -l verbose -d 'Say more on stderr: -v info, -vv debug, -vvv trace'
complete -c kpx -n "__fish_kpx_using_subcommand lab; and __fish_seen_subcommand_from down" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c kpx -n "__fish_kpx_using_subcommand lab; and __fish_seen_subcommand_from list" -s o -l output -d 'Output format' -r -f -a "table\t'Aligned columns for people, about 80 wide'
wide\t'All columns'
json\t'One JSON document (or one object a line, for commands that stream)'
yaml\t'The same as YAML'
name\t'Names only, one a line'
markdown\t'Tables as Markdown, for issues and job summaries'
github\t'What there is to act on as annotations of GitHub Actions'"
complete -c kpx -n "__fish_kpx_using_subcommand lab; and __fish_seen_subcommand_from list" -l color -d 'When to use colour' -r -f -a "auto\t'On a terminal; NO_COLOR, CLICOLOR=0, FORCE_COLOR and CLICOLOR_FORCE are heeded'
always\t'Always'
never\t'Never'"
complete -c kpx -n "__fish_kpx_using_subcommand lab; and __fish_seen_subcommand_from list" -l config -d 'Read defaults of options from this file instead of /etc/kpx/config.toml and ~/.config/kpx/config.toml (KPX_CONFIG)' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand lab; and __fish_seen_subcommand_from list" -l from -d 'Read a snapshot (directory or .tar.zst) instead of the live node' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand lab; and __fish_seen_subcommand_from list" -l netns -d 'Network namespace of the node: a name from `ip netns`, or a path' -r
complete -c kpx -n "__fish_kpx_using_subcommand lab; and __fish_seen_subcommand_from list" -l cgroup -d 'cgroup2 directory whose sockets the node serves [default: the cgroup2 root]' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand lab; and __fish_seen_subcommand_from list" -l bpffs -d 'Directory on a bpf file system for pins' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand lab; and __fish_seen_subcommand_from list" -l cilium-pins -d 'Directory of the maps that Cilium pins' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand lab; and __fish_seen_subcommand_from list" -l state-dir -d 'Directory for journals, plans and backups' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand lab; and __fish_seen_subcommand_from list" -l node-name -d 'Name of the Node object [default: from the snapshot, then the host name]' -r
complete -c kpx -n "__fish_kpx_using_subcommand lab; and __fish_seen_subcommand_from list" -l kube-proxy-flag -d 'Flag kube-proxy was started with, where the node does not tell, such as cluster-cidr=10.244.0.0/16' -r
complete -c kpx -n "__fish_kpx_using_subcommand lab; and __fish_seen_subcommand_from list" -l services-from -d 'API objects from a file or folder instead of a cluster' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand lab; and __fish_seen_subcommand_from list" -l kubeconfig -d 'kubeconfig file' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand lab; and __fish_seen_subcommand_from list" -l context -d 'Context of the kubeconfig' -r
complete -c kpx -n "__fish_kpx_using_subcommand lab; and __fish_seen_subcommand_from list" -l no-headers -d 'Leave out the headings of tables'
complete -c kpx -n "__fish_kpx_using_subcommand lab; and __fish_seen_subcommand_from list" -l no-progress -d 'Show no progress'
complete -c kpx -n "__fish_kpx_using_subcommand lab; and __fish_seen_subcommand_from list" -l no-input -d 'Never ask; fail instead, naming the flag that answers'
complete -c kpx -n "__fish_kpx_using_subcommand lab; and __fish_seen_subcommand_from list" -s q -l quiet -d 'Say less: errors and data only'
complete -c kpx -n "__fish_kpx_using_subcommand lab; and __fish_seen_subcommand_from list" -s v -l verbose -d 'Say more on stderr: -v info, -vv debug, -vvv trace'
complete -c kpx -n "__fish_kpx_using_subcommand lab; and __fish_seen_subcommand_from list" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c kpx -n "__fish_kpx_using_subcommand lab; and __fish_seen_subcommand_from traffic" -l seconds -d 'How long to run' -r
complete -c kpx -n "__fish_kpx_using_subcommand lab; and __fish_seen_subcommand_from traffic" -l flows -d 'Flows that stay open all the time' -r
complete -c kpx -n "__fish_kpx_using_subcommand lab; and __fish_seen_subcommand_from traffic" -l interval -d 'Time between two records of a flow, milliseconds' -r
complete -c kpx -n "__fish_kpx_using_subcommand lab; and __fish_seen_subcommand_from traffic" -l connects -d 'Short connections per second' -r
complete -c kpx -n "__fish_kpx_using_subcommand lab; and __fish_seen_subcommand_from traffic" -s o -l output -d 'Output format' -r -f -a "table\t'Aligned columns for people, about 80 wide'
wide\t'All columns'
json\t'One JSON document (or one object a line, for commands that stream)'
yaml\t'The same as YAML'
name\t'Names only, one a line'
markdown\t'Tables as Markdown, for issues and job summaries'
github\t'What there is to act on as annotations of GitHub Actions'"
complete -c kpx -n "__fish_kpx_using_subcommand lab; and __fish_seen_subcommand_from traffic" -l color -d 'When to use colour' -r -f -a "auto\t'On a terminal; NO_COLOR, CLICOLOR=0, FORCE_COLOR and CLICOLOR_FORCE are heeded'
always\t'Always'
never\t'Never'"
complete -c kpx -n "__fish_kpx_using_subcommand lab; and __fish_seen_subcommand_from traffic" -l config -d 'Read defaults of options from this file instead of /etc/kpx/config.toml and ~/.config/kpx/config.toml (KPX_CONFIG)' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand lab; and __fish_seen_subcommand_from traffic" -l from -d 'Read a snapshot (directory or .tar.zst) instead of the live node' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand lab; and __fish_seen_subcommand_from traffic" -l netns -d 'Network namespace of the node: a name from `ip netns`, or a path' -r
complete -c kpx -n "__fish_kpx_using_subcommand lab; and __fish_seen_subcommand_from traffic" -l cgroup -d 'cgroup2 directory whose sockets the node serves [default: the cgroup2 root]' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand lab; and __fish_seen_subcommand_from traffic" -l bpffs -d 'Directory on a bpf file system for pins' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand lab; and __fish_seen_subcommand_from traffic" -l cilium-pins -d 'Directory of the maps that Cilium pins' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand lab; and __fish_seen_subcommand_from traffic" -l state-dir -d 'Directory for journals, plans and backups' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand lab; and __fish_seen_subcommand_from traffic" -l node-name -d 'Name of the Node object [default: from the snapshot, then the host name]' -r
complete -c kpx -n "__fish_kpx_using_subcommand lab; and __fish_seen_subcommand_from traffic" -l kube-proxy-flag -d 'Flag kube-proxy was started with, where the node does not tell, such as cluster-cidr=10.244.0.0/16' -r
complete -c kpx -n "__fish_kpx_using_subcommand lab; and __fish_seen_subcommand_from traffic" -l services-from -d 'API objects from a file or folder instead of a cluster' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand lab; and __fish_seen_subcommand_from traffic" -l kubeconfig -d 'kubeconfig file' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand lab; and __fish_seen_subcommand_from traffic" -l context -d 'Context of the kubeconfig' -r
complete -c kpx -n "__fish_kpx_using_subcommand lab; and __fish_seen_subcommand_from traffic" -l no-headers -d 'Leave out the headings of tables'
complete -c kpx -n "__fish_kpx_using_subcommand lab; and __fish_seen_subcommand_from traffic" -l no-progress -d 'Show no progress'
complete -c kpx -n "__fish_kpx_using_subcommand lab; and __fish_seen_subcommand_from traffic" -l no-input -d 'Never ask; fail instead, naming the flag that answers'
complete -c kpx -n "__fish_kpx_using_subcommand lab; and __fish_seen_subcommand_from traffic" -s q -l quiet -d 'Say less: errors and data only'
complete -c kpx -n "__fish_kpx_using_subcommand lab; and __fish_seen_subcommand_from traffic" -s v -l verbose -d 'Say more on stderr: -v info, -vv debug, -vvv trace'
complete -c kpx -n "__fish_kpx_using_subcommand lab; and __fish_seen_subcommand_from traffic" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c kpx -n "__fish_kpx_using_subcommand lab; and __fish_seen_subcommand_from serve" -s o -l output -d 'Output format' -r -f -a "table\t'Aligned columns for people, about 80 wide'
wide\t'All columns'
json\t'One JSON document (or one object a line, for commands that stream)'
yaml\t'The same as YAML'
name\t'Names only, one a line'
markdown\t'Tables as Markdown, for issues and job summaries'
github\t'What there is to act on as annotations of GitHub Actions'"
complete -c kpx -n "__fish_kpx_using_subcommand lab; and __fish_seen_subcommand_from serve" -l color -d 'When to use colour' -r -f -a "auto\t'On a terminal; NO_COLOR, CLICOLOR=0, FORCE_COLOR and CLICOLOR_FORCE are heeded'
always\t'Always'
never\t'Never'"
complete -c kpx -n "__fish_kpx_using_subcommand lab; and __fish_seen_subcommand_from serve" -l config -d 'Read defaults of options from this file instead of /etc/kpx/config.toml and ~/.config/kpx/config.toml (KPX_CONFIG)' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand lab; and __fish_seen_subcommand_from serve" -l from -d 'Read a snapshot (directory or .tar.zst) instead of the live node' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand lab; and __fish_seen_subcommand_from serve" -l netns -d 'Network namespace of the node: a name from `ip netns`, or a path' -r
complete -c kpx -n "__fish_kpx_using_subcommand lab; and __fish_seen_subcommand_from serve" -l cgroup -d 'cgroup2 directory whose sockets the node serves [default: the cgroup2 root]' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand lab; and __fish_seen_subcommand_from serve" -l bpffs -d 'Directory on a bpf file system for pins' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand lab; and __fish_seen_subcommand_from serve" -l cilium-pins -d 'Directory of the maps that Cilium pins' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand lab; and __fish_seen_subcommand_from serve" -l state-dir -d 'Directory for journals, plans and backups' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand lab; and __fish_seen_subcommand_from serve" -l node-name -d 'Name of the Node object [default: from the snapshot, then the host name]' -r
complete -c kpx -n "__fish_kpx_using_subcommand lab; and __fish_seen_subcommand_from serve" -l kube-proxy-flag -d 'Flag kube-proxy was started with, where the node does not tell, such as cluster-cidr=10.244.0.0/16' -r
complete -c kpx -n "__fish_kpx_using_subcommand lab; and __fish_seen_subcommand_from serve" -l services-from -d 'API objects from a file or folder instead of a cluster' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand lab; and __fish_seen_subcommand_from serve" -l kubeconfig -d 'kubeconfig file' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand lab; and __fish_seen_subcommand_from serve" -l context -d 'Context of the kubeconfig' -r
complete -c kpx -n "__fish_kpx_using_subcommand lab; and __fish_seen_subcommand_from serve" -l no-headers -d 'Leave out the headings of tables'
complete -c kpx -n "__fish_kpx_using_subcommand lab; and __fish_seen_subcommand_from serve" -l no-progress -d 'Show no progress'
complete -c kpx -n "__fish_kpx_using_subcommand lab; and __fish_seen_subcommand_from serve" -l no-input -d 'Never ask; fail instead, naming the flag that answers'
complete -c kpx -n "__fish_kpx_using_subcommand lab; and __fish_seen_subcommand_from serve" -s q -l quiet -d 'Say less: errors and data only'
complete -c kpx -n "__fish_kpx_using_subcommand lab; and __fish_seen_subcommand_from serve" -s v -l verbose -d 'Say more on stderr: -v info, -vv debug, -vvv trace'
complete -c kpx -n "__fish_kpx_using_subcommand lab; and __fish_seen_subcommand_from serve" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c kpx -n "__fish_kpx_using_subcommand lab; and __fish_seen_subcommand_from client" -l join -d 'cgroup to join' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand lab; and __fish_seen_subcommand_from client" -s o -l output -d 'Output format' -r -f -a "table\t'Aligned columns for people, about 80 wide'
wide\t'All columns'
json\t'One JSON document (or one object a line, for commands that stream)'
yaml\t'The same as YAML'
name\t'Names only, one a line'
markdown\t'Tables as Markdown, for issues and job summaries'
github\t'What there is to act on as annotations of GitHub Actions'"
complete -c kpx -n "__fish_kpx_using_subcommand lab; and __fish_seen_subcommand_from client" -l color -d 'When to use colour' -r -f -a "auto\t'On a terminal; NO_COLOR, CLICOLOR=0, FORCE_COLOR and CLICOLOR_FORCE are heeded'
always\t'Always'
never\t'Never'"
complete -c kpx -n "__fish_kpx_using_subcommand lab; and __fish_seen_subcommand_from client" -l config -d 'Read defaults of options from this file instead of /etc/kpx/config.toml and ~/.config/kpx/config.toml (KPX_CONFIG)' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand lab; and __fish_seen_subcommand_from client" -l from -d 'Read a snapshot (directory or .tar.zst) instead of the live node' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand lab; and __fish_seen_subcommand_from client" -l netns -d 'Network namespace of the node: a name from `ip netns`, or a path' -r
complete -c kpx -n "__fish_kpx_using_subcommand lab; and __fish_seen_subcommand_from client" -l cgroup -d 'cgroup2 directory whose sockets the node serves [default: the cgroup2 root]' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand lab; and __fish_seen_subcommand_from client" -l bpffs -d 'Directory on a bpf file system for pins' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand lab; and __fish_seen_subcommand_from client" -l cilium-pins -d 'Directory of the maps that Cilium pins' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand lab; and __fish_seen_subcommand_from client" -l state-dir -d 'Directory for journals, plans and backups' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand lab; and __fish_seen_subcommand_from client" -l node-name -d 'Name of the Node object [default: from the snapshot, then the host name]' -r
complete -c kpx -n "__fish_kpx_using_subcommand lab; and __fish_seen_subcommand_from client" -l kube-proxy-flag -d 'Flag kube-proxy was started with, where the node does not tell, such as cluster-cidr=10.244.0.0/16' -r
complete -c kpx -n "__fish_kpx_using_subcommand lab; and __fish_seen_subcommand_from client" -l services-from -d 'API objects from a file or folder instead of a cluster' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand lab; and __fish_seen_subcommand_from client" -l kubeconfig -d 'kubeconfig file' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand lab; and __fish_seen_subcommand_from client" -l context -d 'Context of the kubeconfig' -r
complete -c kpx -n "__fish_kpx_using_subcommand lab; and __fish_seen_subcommand_from client" -l no-headers -d 'Leave out the headings of tables'
complete -c kpx -n "__fish_kpx_using_subcommand lab; and __fish_seen_subcommand_from client" -l no-progress -d 'Show no progress'
complete -c kpx -n "__fish_kpx_using_subcommand lab; and __fish_seen_subcommand_from client" -l no-input -d 'Never ask; fail instead, naming the flag that answers'
complete -c kpx -n "__fish_kpx_using_subcommand lab; and __fish_seen_subcommand_from client" -s q -l quiet -d 'Say less: errors and data only'
complete -c kpx -n "__fish_kpx_using_subcommand lab; and __fish_seen_subcommand_from client" -s v -l verbose -d 'Say more on stderr: -v info, -vv debug, -vvv trace'
complete -c kpx -n "__fish_kpx_using_subcommand lab; and __fish_seen_subcommand_from client" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c kpx -n "__fish_kpx_using_subcommand lab; and __fish_seen_subcommand_from help" -f -a "demo" -d 'Watch a recorded node go to eBPF and come back, under live traffic'
complete -c kpx -n "__fish_kpx_using_subcommand lab; and __fish_seen_subcommand_from help" -f -a "up" -d 'Bring a recorded node up in network namespaces'
complete -c kpx -n "__fish_kpx_using_subcommand lab; and __fish_seen_subcommand_from help" -f -a "down" -d 'Remove a lab and everything it made, also after a crash'
complete -c kpx -n "__fish_kpx_using_subcommand lab; and __fish_seen_subcommand_from help" -f -a "list" -d 'List the labs of this machine'
complete -c kpx -n "__fish_kpx_using_subcommand lab; and __fish_seen_subcommand_from help" -f -a "traffic" -d 'Run traffic through the Services of a lab and report what it went through'
complete -c kpx -n "__fish_kpx_using_subcommand lab; and __fish_seen_subcommand_from help" -f -a "serve" -d 'Be the backends of a lab'
complete -c kpx -n "__fish_kpx_using_subcommand lab; and __fish_seen_subcommand_from help" -f -a "client" -d 'Be a client of a lab'
complete -c kpx -n "__fish_kpx_using_subcommand lab; and __fish_seen_subcommand_from help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c kpx -n "__fish_kpx_using_subcommand version" -s o -l output -d 'Output format' -r -f -a "table\t'Aligned columns for people, about 80 wide'
wide\t'All columns'
json\t'One JSON document (or one object a line, for commands that stream)'
yaml\t'The same as YAML'
name\t'Names only, one a line'
markdown\t'Tables as Markdown, for issues and job summaries'
github\t'What there is to act on as annotations of GitHub Actions'"
complete -c kpx -n "__fish_kpx_using_subcommand version" -l color -d 'When to use colour' -r -f -a "auto\t'On a terminal; NO_COLOR, CLICOLOR=0, FORCE_COLOR and CLICOLOR_FORCE are heeded'
always\t'Always'
never\t'Never'"
complete -c kpx -n "__fish_kpx_using_subcommand version" -l config -d 'Read defaults of options from this file instead of /etc/kpx/config.toml and ~/.config/kpx/config.toml (KPX_CONFIG)' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand version" -l from -d 'Read a snapshot (directory or .tar.zst) instead of the live node' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand version" -l netns -d 'Network namespace of the node: a name from `ip netns`, or a path' -r
complete -c kpx -n "__fish_kpx_using_subcommand version" -l cgroup -d 'cgroup2 directory whose sockets the node serves [default: the cgroup2 root]' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand version" -l bpffs -d 'Directory on a bpf file system for pins' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand version" -l cilium-pins -d 'Directory of the maps that Cilium pins' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand version" -l state-dir -d 'Directory for journals, plans and backups' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand version" -l node-name -d 'Name of the Node object [default: from the snapshot, then the host name]' -r
complete -c kpx -n "__fish_kpx_using_subcommand version" -l kube-proxy-flag -d 'Flag kube-proxy was started with, where the node does not tell, such as cluster-cidr=10.244.0.0/16' -r
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
name\t'Names only, one a line'
markdown\t'Tables as Markdown, for issues and job summaries'
github\t'What there is to act on as annotations of GitHub Actions'"
complete -c kpx -n "__fish_kpx_using_subcommand completions" -l color -d 'When to use colour' -r -f -a "auto\t'On a terminal; NO_COLOR, CLICOLOR=0, FORCE_COLOR and CLICOLOR_FORCE are heeded'
always\t'Always'
never\t'Never'"
complete -c kpx -n "__fish_kpx_using_subcommand completions" -l config -d 'Read defaults of options from this file instead of /etc/kpx/config.toml and ~/.config/kpx/config.toml (KPX_CONFIG)' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand completions" -l from -d 'Read a snapshot (directory or .tar.zst) instead of the live node' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand completions" -l netns -d 'Network namespace of the node: a name from `ip netns`, or a path' -r
complete -c kpx -n "__fish_kpx_using_subcommand completions" -l cgroup -d 'cgroup2 directory whose sockets the node serves [default: the cgroup2 root]' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand completions" -l bpffs -d 'Directory on a bpf file system for pins' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand completions" -l cilium-pins -d 'Directory of the maps that Cilium pins' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand completions" -l state-dir -d 'Directory for journals, plans and backups' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand completions" -l node-name -d 'Name of the Node object [default: from the snapshot, then the host name]' -r
complete -c kpx -n "__fish_kpx_using_subcommand completions" -l kube-proxy-flag -d 'Flag kube-proxy was started with, where the node does not tell, such as cluster-cidr=10.244.0.0/16' -r
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
name\t'Names only, one a line'
markdown\t'Tables as Markdown, for issues and job summaries'
github\t'What there is to act on as annotations of GitHub Actions'"
complete -c kpx -n "__fish_kpx_using_subcommand man" -l color -d 'When to use colour' -r -f -a "auto\t'On a terminal; NO_COLOR, CLICOLOR=0, FORCE_COLOR and CLICOLOR_FORCE are heeded'
always\t'Always'
never\t'Never'"
complete -c kpx -n "__fish_kpx_using_subcommand man" -l config -d 'Read defaults of options from this file instead of /etc/kpx/config.toml and ~/.config/kpx/config.toml (KPX_CONFIG)' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand man" -l from -d 'Read a snapshot (directory or .tar.zst) instead of the live node' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand man" -l netns -d 'Network namespace of the node: a name from `ip netns`, or a path' -r
complete -c kpx -n "__fish_kpx_using_subcommand man" -l cgroup -d 'cgroup2 directory whose sockets the node serves [default: the cgroup2 root]' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand man" -l bpffs -d 'Directory on a bpf file system for pins' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand man" -l cilium-pins -d 'Directory of the maps that Cilium pins' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand man" -l state-dir -d 'Directory for journals, plans and backups' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand man" -l node-name -d 'Name of the Node object [default: from the snapshot, then the host name]' -r
complete -c kpx -n "__fish_kpx_using_subcommand man" -l kube-proxy-flag -d 'Flag kube-proxy was started with, where the node does not tell, such as cluster-cidr=10.244.0.0/16' -r
complete -c kpx -n "__fish_kpx_using_subcommand man" -l services-from -d 'API objects from a file or folder instead of a cluster' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand man" -l kubeconfig -d 'kubeconfig file' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand man" -l context -d 'Context of the kubeconfig' -r
complete -c kpx -n "__fish_kpx_using_subcommand man" -l no-headers -d 'Leave out the headings of tables'
complete -c kpx -n "__fish_kpx_using_subcommand man" -l no-progress -d 'Show no progress'
complete -c kpx -n "__fish_kpx_using_subcommand man" -l no-input -d 'Never ask; fail instead, naming the flag that answers'
complete -c kpx -n "__fish_kpx_using_subcommand man" -s q -l quiet -d 'Say less: errors and data only'
complete -c kpx -n "__fish_kpx_using_subcommand man" -s v -l verbose -d 'Say more on stderr: -v info, -vv debug, -vvv trace'
complete -c kpx -n "__fish_kpx_using_subcommand man" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c kpx -n "__fish_kpx_using_subcommand checks" -s o -l output -d 'Output format' -r -f -a "table\t'Aligned columns for people, about 80 wide'
wide\t'All columns'
json\t'One JSON document (or one object a line, for commands that stream)'
yaml\t'The same as YAML'
name\t'Names only, one a line'
markdown\t'Tables as Markdown, for issues and job summaries'
github\t'What there is to act on as annotations of GitHub Actions'"
complete -c kpx -n "__fish_kpx_using_subcommand checks" -l color -d 'When to use colour' -r -f -a "auto\t'On a terminal; NO_COLOR, CLICOLOR=0, FORCE_COLOR and CLICOLOR_FORCE are heeded'
always\t'Always'
never\t'Never'"
complete -c kpx -n "__fish_kpx_using_subcommand checks" -l config -d 'Read defaults of options from this file instead of /etc/kpx/config.toml and ~/.config/kpx/config.toml (KPX_CONFIG)' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand checks" -l from -d 'Read a snapshot (directory or .tar.zst) instead of the live node' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand checks" -l netns -d 'Network namespace of the node: a name from `ip netns`, or a path' -r
complete -c kpx -n "__fish_kpx_using_subcommand checks" -l cgroup -d 'cgroup2 directory whose sockets the node serves [default: the cgroup2 root]' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand checks" -l bpffs -d 'Directory on a bpf file system for pins' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand checks" -l cilium-pins -d 'Directory of the maps that Cilium pins' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand checks" -l state-dir -d 'Directory for journals, plans and backups' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand checks" -l node-name -d 'Name of the Node object [default: from the snapshot, then the host name]' -r
complete -c kpx -n "__fish_kpx_using_subcommand checks" -l kube-proxy-flag -d 'Flag kube-proxy was started with, where the node does not tell, such as cluster-cidr=10.244.0.0/16' -r
complete -c kpx -n "__fish_kpx_using_subcommand checks" -l services-from -d 'API objects from a file or folder instead of a cluster' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand checks" -l kubeconfig -d 'kubeconfig file' -r -F
complete -c kpx -n "__fish_kpx_using_subcommand checks" -l context -d 'Context of the kubeconfig' -r
complete -c kpx -n "__fish_kpx_using_subcommand checks" -l no-headers -d 'Leave out the headings of tables'
complete -c kpx -n "__fish_kpx_using_subcommand checks" -l no-progress -d 'Show no progress'
complete -c kpx -n "__fish_kpx_using_subcommand checks" -l no-input -d 'Never ask; fail instead, naming the flag that answers'
complete -c kpx -n "__fish_kpx_using_subcommand checks" -s q -l quiet -d 'Say less: errors and data only'
complete -c kpx -n "__fish_kpx_using_subcommand checks" -s v -l verbose -d 'Say more on stderr: -v info, -vv debug, -vvv trace'
complete -c kpx -n "__fish_kpx_using_subcommand checks" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c kpx -n "__fish_kpx_using_subcommand help; and not __fish_seen_subcommand_from inspect diff path doctor doctor-probe top monitor audit preflight preflight-trial explain snapshot report agent migrate lab version completions man checks help" -f -a "inspect" -d 'Show what serves on this node: Services, backends, flows, BPF objects'
complete -c kpx -n "__fish_kpx_using_subcommand help; and not __fish_seen_subcommand_from inspect diff path doctor doctor-probe top monitor audit preflight preflight-trial explain snapshot report agent migrate lab version completions man checks help" -f -a "diff" -d 'Compare two descriptions of a node\'s Services'
complete -c kpx -n "__fish_kpx_using_subcommand help; and not __fish_seen_subcommand_from inspect diff path doctor doctor-probe top monitor audit preflight preflight-trial explain snapshot report agent migrate lab version completions man checks help" -f -a "path" -d 'Follow a packet: which rules and maps it meets in each dataplane, and where it ends'
complete -c kpx -n "__fish_kpx_using_subcommand help; and not __fish_seen_subcommand_from inspect diff path doctor doctor-probe top monitor audit preflight preflight-trial explain snapshot report agent migrate lab version completions man checks help" -f -a "doctor" -d 'Find out why a Service does not work, from the API to a connection'
complete -c kpx -n "__fish_kpx_using_subcommand help; and not __fish_seen_subcommand_from inspect diff path doctor doctor-probe top monitor audit preflight preflight-trial explain snapshot report agent migrate lab version completions man checks help" -f -a "doctor-probe" -d 'Connect from elsewhere, on behalf of doctor'
complete -c kpx -n "__fish_kpx_using_subcommand help; and not __fish_seen_subcommand_from inspect diff path doctor doctor-probe top monitor audit preflight preflight-trial explain snapshot report agent migrate lab version completions man checks help" -f -a "top" -d 'Watch how busy each Service and backend is'
complete -c kpx -n "__fish_kpx_using_subcommand help; and not __fish_seen_subcommand_from inspect diff path doctor doctor-probe top monitor audit preflight preflight-trial explain snapshot report agent migrate lab version completions man checks help" -f -a "monitor" -d 'See which backend each connection gets, or why none, as it happens'
complete -c kpx -n "__fish_kpx_using_subcommand help; and not __fish_seen_subcommand_from inspect diff path doctor doctor-probe top monitor audit preflight preflight-trial explain snapshot report agent migrate lab version completions man checks help" -f -a "audit" -d 'Judge what the old dataplanes left on a node: what is wrong, and what to do'
complete -c kpx -n "__fish_kpx_using_subcommand help; and not __fish_seen_subcommand_from inspect diff path doctor doctor-probe top monitor audit preflight preflight-trial explain snapshot report agent migrate lab version completions man checks help" -f -a "preflight" -d 'Try what this kernel and node can do, or foretell it from a kernel\'s files'
complete -c kpx -n "__fish_kpx_using_subcommand help; and not __fish_seen_subcommand_from inspect diff path doctor doctor-probe top monitor audit preflight preflight-trial explain snapshot report agent migrate lab version completions man checks help" -f -a "preflight-trial" -d 'Try the running kernel, on behalf of preflight'
complete -c kpx -n "__fish_kpx_using_subcommand help; and not __fish_seen_subcommand_from inspect diff path doctor doctor-probe top monitor audit preflight preflight-trial explain snapshot report agent migrate lab version completions man checks help" -f -a "explain" -d 'Explain a check of audit or preflight'
complete -c kpx -n "__fish_kpx_using_subcommand help; and not __fish_seen_subcommand_from inspect diff path doctor doctor-probe top monitor audit preflight preflight-trial explain snapshot report agent migrate lab version completions man checks help" -f -a "snapshot" -d 'Record a node, for reports, tests and reading elsewhere'
complete -c kpx -n "__fish_kpx_using_subcommand help; and not __fish_seen_subcommand_from inspect diff path doctor doctor-probe top monitor audit preflight preflight-trial explain snapshot report agent migrate lab version completions man checks help" -f -a "report" -d 'Write what is to be known of a node as one page for a browser'
complete -c kpx -n "__fish_kpx_using_subcommand help; and not __fish_seen_subcommand_from inspect diff path doctor doctor-probe top monitor audit preflight preflight-trial explain snapshot report agent migrate lab version completions man checks help" -f -a "agent" -d 'Keep serving this node\'s Services, as kube-proxy did'
complete -c kpx -n "__fish_kpx_using_subcommand help; and not __fish_seen_subcommand_from inspect diff path doctor doctor-probe top monitor audit preflight preflight-trial explain snapshot report agent migrate lab version completions man checks help" -f -a "migrate" -d 'Carry this node from kube-proxy to eBPF, and back'
complete -c kpx -n "__fish_kpx_using_subcommand help; and not __fish_seen_subcommand_from inspect diff path doctor doctor-probe top monitor audit preflight preflight-trial explain snapshot report agent migrate lab version completions man checks help" -f -a "lab" -d 'Rehearse on a recorded node, inside network namespaces'
complete -c kpx -n "__fish_kpx_using_subcommand help; and not __fish_seen_subcommand_from inspect diff path doctor doctor-probe top monitor audit preflight preflight-trial explain snapshot report agent migrate lab version completions man checks help" -f -a "version" -d 'Print the version, the eBPF object\'s hash and the kernel floor'
complete -c kpx -n "__fish_kpx_using_subcommand help; and not __fish_seen_subcommand_from inspect diff path doctor doctor-probe top monitor audit preflight preflight-trial explain snapshot report agent migrate lab version completions man checks help" -f -a "completions" -d 'Print a completion script for a shell'
complete -c kpx -n "__fish_kpx_using_subcommand help; and not __fish_seen_subcommand_from inspect diff path doctor doctor-probe top monitor audit preflight preflight-trial explain snapshot report agent migrate lab version completions man checks help" -f -a "man" -d 'Write the man pages'
complete -c kpx -n "__fish_kpx_using_subcommand help; and not __fish_seen_subcommand_from inspect diff path doctor doctor-probe top monitor audit preflight preflight-trial explain snapshot report agent migrate lab version completions man checks help" -f -a "checks" -d 'Print docs/checks.md'
complete -c kpx -n "__fish_kpx_using_subcommand help; and not __fish_seen_subcommand_from inspect diff path doctor doctor-probe top monitor audit preflight preflight-trial explain snapshot report agent migrate lab version completions man checks help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c kpx -n "__fish_kpx_using_subcommand help; and __fish_seen_subcommand_from inspect" -f -a "services" -d 'List Services as the API, the rules or kpx\'s maps describe them'
complete -c kpx -n "__fish_kpx_using_subcommand help; and __fish_seen_subcommand_from inspect" -f -a "service" -d 'Show everything about one Service: API, rules, maps, counters, open connections'
complete -c kpx -n "__fish_kpx_using_subcommand help; and __fish_seen_subcommand_from inspect" -f -a "backends" -d 'List backends and the Services that use them'
complete -c kpx -n "__fish_kpx_using_subcommand help; and __fish_seen_subcommand_from inspect" -f -a "affinity" -d 'List clients that stay with their backends'
complete -c kpx -n "__fish_kpx_using_subcommand help; and __fish_seen_subcommand_from inspect" -f -a "conntrack" -d 'Count the kernel\'s flows, or list those that a dataplane\'s packet path knows'
complete -c kpx -n "__fish_kpx_using_subcommand help; and __fish_seen_subcommand_from inspect" -f -a "ipvs" -d 'List virtual services of IPVS with their servers and counters'
complete -c kpx -n "__fish_kpx_using_subcommand help; and __fish_seen_subcommand_from inspect" -f -a "nat" -d 'List the addresses that are replaced, and by which'
complete -c kpx -n "__fish_kpx_using_subcommand help; and __fish_seen_subcommand_from inspect" -f -a "maglev" -d 'List how Maglev tables are shared among backends'
complete -c kpx -n "__fish_kpx_using_subcommand help; and __fish_seen_subcommand_from inspect" -f -a "map" -d 'Show the entries of any BPF map of the host'
complete -c kpx -n "__fish_kpx_using_subcommand help; and __fish_seen_subcommand_from inspect" -f -a "maps" -d 'List BPF maps of the host, and whose they are'
complete -c kpx -n "__fish_kpx_using_subcommand help; and __fish_seen_subcommand_from inspect" -f -a "programs" -d 'List BPF programs of the host, and whose they are'
complete -c kpx -n "__fish_kpx_using_subcommand help; and __fish_seen_subcommand_from inspect" -f -a "links" -d 'List BPF links of the host, with their programs'
complete -c kpx -n "__fish_kpx_using_subcommand help; and __fish_seen_subcommand_from inspect" -f -a "cgroups" -d 'List programs on the hooks of cgroups, in the order in which they run'
complete -c kpx -n "__fish_kpx_using_subcommand help; and __fish_seen_subcommand_from inspect" -f -a "devices" -d 'List programs on network interfaces: XDP, tcx, tc, netkit'
complete -c kpx -n "__fish_kpx_using_subcommand help; and __fish_seen_subcommand_from migrate" -f -a "plan" -d 'Show what a migration of this node would do, and whether it may'
complete -c kpx -n "__fish_kpx_using_subcommand help; and __fish_seen_subcommand_from migrate" -f -a "rehearse" -d 'Try the migration of a recorded node in network namespaces, there and back, under traffic'
complete -c kpx -n "__fish_kpx_using_subcommand help; and __fish_seen_subcommand_from migrate" -f -a "apply" -d 'Carry the node over, or go on where an earlier run stopped'
complete -c kpx -n "__fish_kpx_using_subcommand help; and __fish_seen_subcommand_from migrate" -f -a "status" -d 'Show how far the migration is, looking at the node itself'
complete -c kpx -n "__fish_kpx_using_subcommand help; and __fish_seen_subcommand_from migrate" -f -a "verify" -d 'Compare API, rules and maps, and try connections'
complete -c kpx -n "__fish_kpx_using_subcommand help; and __fish_seen_subcommand_from migrate" -f -a "rollback" -d 'Bring the node back to the rules, from wherever it is'
complete -c kpx -n "__fish_kpx_using_subcommand help; and __fish_seen_subcommand_from migrate" -f -a "list" -d 'List past and present migrations of this node'
complete -c kpx -n "__fish_kpx_using_subcommand help; and __fish_seen_subcommand_from migrate" -f -a "probe" -d 'Make the connections that a request on standard input names'
complete -c kpx -n "__fish_kpx_using_subcommand help; and __fish_seen_subcommand_from lab" -f -a "demo" -d 'Watch a recorded node go to eBPF and come back, under live traffic'
complete -c kpx -n "__fish_kpx_using_subcommand help; and __fish_seen_subcommand_from lab" -f -a "up" -d 'Bring a recorded node up in network namespaces'
complete -c kpx -n "__fish_kpx_using_subcommand help; and __fish_seen_subcommand_from lab" -f -a "down" -d 'Remove a lab and everything it made, also after a crash'
complete -c kpx -n "__fish_kpx_using_subcommand help; and __fish_seen_subcommand_from lab" -f -a "list" -d 'List the labs of this machine'
complete -c kpx -n "__fish_kpx_using_subcommand help; and __fish_seen_subcommand_from lab" -f -a "traffic" -d 'Run traffic through the Services of a lab and report what it went through'
complete -c kpx -n "__fish_kpx_using_subcommand help; and __fish_seen_subcommand_from lab" -f -a "serve" -d 'Be the backends of a lab'
complete -c kpx -n "__fish_kpx_using_subcommand help; and __fish_seen_subcommand_from lab" -f -a "client" -d 'Be a client of a lab'
