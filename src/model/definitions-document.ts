/** Of the documents `GET definitions` writes and `POST definitions` reads; raised when a document of before would be misread. */
export const DEFINITIONS_FORMAT = 1

export const DEFINITIONS_PATH = '/api/v1/definitions'

/** Largest document taken, bytes. An export with all the definitions the default limits permit is about half of it; a larger one goes in parts. */
export const DEFINITIONS_BYTES_MAX = 8 * 1024 * 1024
