throw new Error('Script execution timed out.')
