import { proxyBackendContract } from './contract.ts';
import { MemoryBackend } from './memory-backend.ts';

proxyBackendContract('memory', () => {
  const backend = new MemoryBackend();
  return {
    backend,
    restarted: () => backend,
    endpointsOf: clusterIp => {
      const frontend = [...backend.programmed.values()]
        .flatMap(entry => entry.frontends)
        .find(({ address }) => address === clusterIp);
      if (!frontend) return undefined;
      return frontend.endpoints.length === 0
        ? 'refused'
        : frontend.endpoints.map(({ ip, port }) => `${ip}:${port}`).sort();
    },
    close: () => {},
  };
});
