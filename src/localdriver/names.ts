/** Names by which the bundled driver of local volumes is known. */

export const LOCAL_DRIVER = 'cox-local';
/** Topology key of its volumes, and label of its snapshots: the node on which they lie. */
export const LOCAL_TOPOLOGY_KEY = 'cox-local/node';
