import { installStackTraces } from './stack-traces.ts'

/** Where the executable starts; the sources start at main.ts, which reads process.argv when it is imported. */
installStackTraces()
void import('./main.ts')
