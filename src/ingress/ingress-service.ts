/** How traffic gets to the data planes: the Service in front of them, the ports behind it, and how a node says that it has one. */

export const SERVICE_NAMESPACE = 'kube-system';
export const SERVICE_NAME = 'ingress';
/** On a Node: the ports of its data plane, `10080/10443`. */
export const DATA_PLANE_ANNOTATION = 'ingress.coxswain.dev/data-plane';
/** Outside of node ports and of the ports that programs usually take. */
export const HTTP_PORT = 10080;
export const HTTPS_PORT = 10443;
