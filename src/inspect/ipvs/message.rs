//! Numbers of generic netlink's family `IPVS` (linux/ip_vs.h): what the kernel is asked and told, and answers.

// IPVS_CMD_*
pub(crate) const NEW_SERVICE: u8 = 1;
pub(crate) const DELETE_SERVICE: u8 = 3;
pub(crate) const NEW_SERVER: u8 = 5;
pub(crate) const SET_SERVER: u8 = 6;
pub(super) const SET_CONFIG: u8 = 12;
pub(super) const SET_INFO: u8 = 14;

// IPVS_CMD_ATTR_*
pub(crate) const SERVICE: u16 = 1;
pub(crate) const SERVER: u16 = 2;
pub(super) const TIMEOUTS: [u16; 3] = [4, 5, 6];

// IPVS_INFO_ATTR_*
pub(super) const INFO_VERSION: u16 = 1;
pub(super) const INFO_TABLE_SIZE: u16 = 2;

// IPVS_SVC_ATTR_*
pub(crate) const SERVICE_FAMILY: u16 = 1;
pub(crate) const SERVICE_PROTOCOL: u16 = 2;
pub(crate) const SERVICE_ADDRESS: u16 = 3;
pub(crate) const SERVICE_PORT: u16 = 4;
pub(crate) const SERVICE_MARK: u16 = 5;
pub(crate) const SERVICE_SCHEDULER: u16 = 6;
pub(crate) const SERVICE_FLAGS: u16 = 7;
pub(crate) const SERVICE_TIMEOUT: u16 = 8;
pub(crate) const SERVICE_NETMASK: u16 = 9;
pub(super) const SERVICE_STATS: u16 = 10;
pub(super) const SERVICE_STATS64: u16 = 12;

// IPVS_DEST_ATTR_*
pub(crate) const SERVER_ADDRESS: u16 = 1;
pub(crate) const SERVER_PORT: u16 = 2;
pub(crate) const SERVER_FORWARD: u16 = 3;
pub(crate) const SERVER_WEIGHT: u16 = 4;
pub(crate) const SERVER_UPPER_THRESHOLD: u16 = 5;
pub(crate) const SERVER_LOWER_THRESHOLD: u16 = 6;
pub(super) const SERVER_ACTIVE: u16 = 7;
pub(super) const SERVER_INACTIVE: u16 = 8;
pub(super) const SERVER_PERSISTENT: u16 = 9;
pub(super) const SERVER_STATS: u16 = 10;
pub(crate) const SERVER_FAMILY: u16 = 11;
pub(super) const SERVER_STATS64: u16 = 12;
