//! The causes that doctor can name.

use std::fmt;

use serde::Serialize;

/// Why a Service does not do what somebody expects.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Cause {
    /// The API has no such Service.
    NoSuchService,
    /// No Service has the address or the port.
    NoSuchAddress,
    /// The Service is one that nobody translates: headless, ExternalName, or another proxy's.
    NotTranslated,
    /// It has no endpoint that could serve.
    NoEndpoints,
    /// Neither kpx nor kube-proxy's rules serve on this node.
    NobodyServes,
    /// kpx is there and does not translate new connections.
    NotActive,
    /// The API has it, and who serves does not.
    NotProgrammed,
    /// Who serves has it otherwise than the API.
    Outdated,
    /// Hooks of sockets are not attached.
    SocketsNotAttached,
    /// Pods' processes are not below the cgroup that the hooks are attached to.
    OtherCgroup,
    /// The packet path is not on a device that clients come by.
    DevicesNotAttached,
    /// Another program or dataplane decides first.
    SomebodyInFront,
    /// NodePorts do not answer on the address.
    NodePortAddress,
    /// externalTrafficPolicy is Local, and no endpoint is on this node.
    NoLocalEndpoint,
    /// loadBalancerSourceRanges do not have the client.
    SourceRanges,
    /// Rules of others drop or refuse the packet on its way to the backend.
    Filtered,
    /// The packet ends elsewhere than the API asks for.
    WrongWay,
    /// The backend itself does not answer.
    BackendDown,
    /// The Service does not answer, though its backends do.
    NoAnswer,
    /// The backend sees the node's address in place of the client's.
    SourceReplaced,
    /// Who serves does not keep clients at their backends, though the API asks for it.
    AffinityNotKept,
    /// There is no room to remember more clients.
    AffinityFull,
    /// A client's backend has gone.
    AffinityBackendGone,
    /// Flows of datagrams go on to a backend that has gone.
    StaleUdp,
    /// A counter of lost packets or refusals moves.
    DropsMove,
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.serialize(f)
    }
}
