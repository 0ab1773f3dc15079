import type { EnvironmentValue } from './plan.ts'

/** What a run sees of a value: text, the way to a service, or a placeholder; never a secret. */
export function environmentText(value: EnvironmentValue, placeholders: Readonly<Record<string, string>>): string {
  switch (value.kind) {
    case 'literal':
      return value.value
    case 'service':
      return `http://127.0.0.1:3128/${value.service}${value.path === undefined ? '' : `/${value.path}`}`
    case 'placeholder':
      return Object.hasOwn(placeholders, value.credential) ? (placeholders[value.credential] ?? '') : ''
  }
}
