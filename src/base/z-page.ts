/** `/statusz` and `/flagz` as a component's server sees them: what makes them lies in the API server's layer, and comes when it is asked for. */

export interface ZPage {
  readonly headers: Readonly<Record<string, string>>;
  readonly bytes: Buffer | Promise<Buffer>;
}

export interface ZPageSource {
  /** The page at the path, undefined for other paths. Throws NotAcceptable. */
  find(path: string, accept: string | undefined): ZPage | undefined | Promise<ZPage | undefined>;
}
